"""docs/layout.md, docs/tables.md and the C header say what the code says: nobody has edited them since."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtcore.memory import layout
from rtcore.memory.layout import Layout
from tools import layoutdoc
from tools.layoutdoc import (
    DOCUMENT,
    ENUMS,
    HEADER,
    RECORDS,
    TABLES,
    document,
    enum_remarks,
    files,
    main,
    remarks,
    rules,
)
from tools.layoutheader import OFFSETS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("path", [DOCUMENT, HEADER, TABLES], ids=lambda path: path.name)
def test_the_file_in_the_checkout_is_what_the_layout_gives(path: Path) -> None:
    assert path.read_text() == files()[path], "run: python -m tools.layoutdoc --write"


def test_every_field_has_a_meaning_and_every_record_a_writer() -> None:
    assert len(RECORDS) == 25
    for name, record in RECORDS.items():
        assert record.writer, name
        assert all(record.docs[field].strip() for field in record.fields), name


def test_every_field_stands_in_the_document_at_its_offset() -> None:
    text = document()
    for record in RECORDS.values():
        section = text.split(f"### {record.name}\n", 1)[1].split("\n### ", 1)[0]
        for field in record.fields:
            kind = record.dtype[field].str[1:]
            assert f"| {8 * record.index[field]} | `{field}` | {kind} |" in section, (record.name, field)


def test_every_value_of_every_enum_stands_in_the_document() -> None:
    text = document()
    for kind in ENUMS:
        section = text.split(f"### {kind.__name__}\n", 1)[1].split("\n### ", 1)[0]
        for member in kind:
            assert f"| {member.value} | {member.name.lower()} |" in section


def test_every_ordering_rule_of_the_protocols_is_found_with_its_code() -> None:
    found = {rule.name: rule for rule in rules()}
    stores, loads = (1, 2, 3, 4, 5, 6, 7, 9, 11, 12), (*range(1, 10), 11, 12, 13)
    assert set(found) == {f"W{number}" for number in stores} | {f"R{number}" for number in loads}
    assert found["W1"].code == "self.control[RING_BEGUN] = seq"
    assert found["W2"].why.startswith("pairs with (R1)")
    assert found["R5"].where == "rtcore/memory/slots.py"
    assert found["R5"].code.startswith("if "), "a comment above its code is joined with it"
    assert "entry_seq + 1 is published" in found["R5"].why, "a comment of several lines is read to its end"


def test_every_offset_and_size_of_the_layout_is_in_the_list() -> None:
    named = {offset.name for offset in OFFSETS}
    public = {name for name in vars(Layout) if name.endswith(("_at", "_bytes")) and not name.startswith("_")}
    assert public - set(Layout.__dataclass_fields__) <= named


def test_remarks_are_read_from_above_and_from_behind_a_name() -> None:
    source = "#: First\n#: and more.\nONE = 1\n\n# not a remark\nTWO = 2  #: behind\nTHREE = (\n    3,\n)\n"
    assert remarks(source) == {"ONE": "First and more.", "TWO": "behind"}
    assert enum_remarks(ENUMS[0])["STOP"] == "end now"


def test_without_write_a_stale_file_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layoutdoc, "ROOT", tmp_path)
    monkeypatch.setattr(layoutdoc, "DOCUMENT", tmp_path / "layout.md")
    monkeypatch.setattr(layoutdoc, "HEADER", tmp_path / "rtcore_layout.h")
    monkeypatch.setattr(layoutdoc, "TABLES", tmp_path / "tables.md")
    (tmp_path / "layout.md").write_text("old")
    assert main([]) == 1
    assert (tmp_path / "layout.md").read_text() == "old"
    assert "out of date: layout.md" in capsys.readouterr().out
    assert main(["--write"]) == 0
    assert (tmp_path / "layout.md").read_text() == document()
    assert main([]) == 0


def test_outside_a_checkout_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layoutdoc, "DOCUMENT", tmp_path / "docs" / "layout.md")
    assert main(["--write"]) == 2
    assert "works in a checkout" in capsys.readouterr().err


def test_the_histogram_lists_keep_their_order() -> None:
    assert tuple(layout.ENV_HISTOGRAM_DOCS) == layout.ENV_HISTOGRAMS
    assert layout.WORKER_HISTOGRAMS == ("inference_ns", "publish_to_read_ns")
