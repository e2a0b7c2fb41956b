"""What the public classes say of themselves: examples that run, and a word for each argument."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re

import pytest

import rtcore

pytestmark = pytest.mark.unit

#: Classes and functions that can be used alone, each with an example of it.
WITH_EXAMPLE = {
    "rtcore.clock": ("TickClock", "TickGrid"),
    "rtcore.scheduling.schedule": ("Schedule",),
    "rtcore.scheduling.dispatch": ("Dispatcher",),
    "rtcore.memory.ring": ("FrameRing",),
    "rtcore.memory.slots": ("ActionSlots",),
    "rtcore.memory.weights": ("ParamStore",),
    "rtcore.report.loaded": ("load_run",),
}
_SECTION = re.compile(r"^ *(Args|Returns|Raises|Examples|Yields):$", re.MULTILINE)


def public_classes() -> list[type]:
    return [getattr(rtcore, name) for name in rtcore.__all__ if name != "__version__"]


def args_of(doc: str) -> set[str]:
    """Names that its Args section has a word for."""
    parts = _SECTION.split(doc)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return set(re.findall(r"^\**(\w+):", inspect.cleandoc(sections.get("Args", "")), re.MULTILINE))


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in WITH_EXAMPLE.items() for name in names]
)
def test_the_example_of_what_can_be_used_alone_is_true(module, name):
    loaded = importlib.import_module(module)
    examples = doctest.DocTestFinder(recurse=False).find(getattr(loaded, name), name, module=loaded, globs={})
    assert any(test.examples for test in examples), "it has none"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in examples:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("public", public_classes(), ids=lambda public: public.__name__)
def test_each_public_class_has_a_summary_line_and_a_word_for_each_argument(public):
    doc = inspect.getdoc(public) or ""
    assert doc.splitlines()[0].endswith((".", "?")), "the summary is one line"
    if public is rtcore.RuntimeConfig:
        return  # its fields have descriptions of their own: those of --help
    names = {
        name
        for name, parameter in inspect.signature(public).parameters.items()
        if not name.startswith("_") and parameter.kind is not parameter.VAR_POSITIONAL
    }
    assert names <= args_of(doc), f"no word for {sorted(names - args_of(doc))}"
