"""Modules that have moved: their old paths import, with a `DeprecationWarning`, for one version. Then delete this."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
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
    "rtcore.recording.mend": "rtcore.cli.mend",
    "rtcore.dispatch": "rtcore.scheduling.dispatch",
    "rtcore.schedule": "rtcore.scheduling.schedule",
    "rtcore.ring": "rtcore.memory.ring",
    "rtcore.slots": "rtcore.memory.slots",
    "rtcore.shared": "rtcore.memory.shared",
    "rtcore.layout": "rtcore.memory.layout",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Stands behind Python's own finders: it is asked for a name of rtcore that has no file."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=MOVED[fullname] is None)

    def exec_module(self, module: types.ModuleType) -> None:
        """The old name is the module itself, so that a class has one identity whichever name it came by."""
        if (new := MOVED[module.__name__]) is not None:
            self._warn(module.__name__, new)
            sys.modules[module.__name__] = importlib.import_module(new)

    def get_code(self, fullname: str) -> types.CodeType | None:
        """For `python -m OLD`."""
        new = MOVED[fullname]
        found = importlib.util.find_spec(new) if new is not None else None
        if new is None or found is None or not isinstance(found.loader, importlib.abc.InspectLoader):
            return None
        self._warn(fullname, new)
        return found.loader.get_code(new)

    def get_source(self, fullname: str) -> str | None:
        """None: the file is the new module's."""
        return None

    def _warn(self, old: str, new: str) -> None:
        warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


def install() -> None:
    """Once, when rtcore is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
