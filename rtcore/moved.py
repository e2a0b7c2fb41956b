"""Modules that have moved: their old paths import, with a `DeprecationWarning`, for one version. Then delete this."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence

#: Old path: new path, None for a package that only held others.
MOVED: dict[str, str | None] = {
    "rtcore.embed": None,
    "rtcore.embed.realtimeenv": "rtcore.runtime.realtime_env",
    "rtcore.embed.rtgym": "rtcore.runtime.rtgym",
    "rtcore.transitions": "rtcore.learn.replay_memory",
    "rtcore.history": "rtcore.memory.history",
    "rtcore.recording.replay": "rtcore.virtual.replay",
    "rtcore.recording.mend": "rtcore.cli.mend",
    "rtcore.dispatch": "rtcore.scheduling.dispatch",
    "rtcore.schedule": "rtcore.scheduling.schedule",
    "rtcore.ring": "rtcore.memory.ring",
    "rtcore.slots": "rtcore.memory.slots",
    "rtcore.params": "rtcore.memory.weights",
    "rtcore.shared": "rtcore.memory.shared",
    "rtcore.layout": "rtcore.memory.layout",
    "rtcore.memory.layout.record": "rtcore.memory.layout.record_type",
    "rtcore.learn.master": "rtcore.memory.master",
    "rtcore.forkserver": "rtcore.processes.forkserver",
    "rtcore.holdercrew": "rtcore.processes.holders",
    "rtcore.watch.onlooker": "rtcore.watch.attached",
    "rtcore.report.output": "rtcore.report.finished",
    "rtcore.report.record": "rtcore.results.run_record",
    "rtcore.results.record": "rtcore.results.run_record",
    "rtcore.profile.host": "rtcore.host.conditions",
}
#: Of a path that moved: what was documented there under another name.
RENAMED = {"rtcore.watch.onlooker": {"Onlooker": "AttachedRun"}}


class _Finder:
    """Stands behind Python's own finders: it is asked for a name of rtcore that has no file. It loads what it finds.

    No base class: `importlib.abc` costs a process more than all the rest of `import rtcore`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=MOVED[fullname] is None)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """None: an ordinary module."""

    def exec_module(self, module: types.ModuleType) -> None:
        """The old name is the module itself, so that a class has one identity whichever name it came by."""
        if (new := MOVED[module.__name__]) is not None:
            self._warn(module.__name__, new)
            found = sys.modules[module.__name__] = importlib.import_module(new)
            for name, today in RENAMED.get(module.__name__, {}).items():
                setattr(found, name, getattr(found, today))

    def get_code(self, fullname: str) -> types.CodeType | None:
        """For `python -m OLD`."""
        from importlib.util import find_spec  # noqa: PLC0415

        new = MOVED[fullname]
        found = find_spec(new) if new is not None else None
        if new is None or found is None or not isinstance(found.loader, importlib.machinery.SourceFileLoader):
            return None
        self._warn(fullname, new)
        return found.loader.get_code(new)

    def _warn(self, old: str, new: str) -> None:
        warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


def install() -> None:
    """Once, when rtcore is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
