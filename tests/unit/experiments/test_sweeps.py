"""Cells that are played, in this process: what they come to, what is kept of them, and what a sweep does with that."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from rtcore.errors import ConfigError, ContractBroken, RecordError, RtcoreError
from rtcore.experiments import sweep
from rtcore.experiments.local import Ended
from rtcore.experiments.playing import curve_of, play_cell
from rtcore.experiments.progress import SweepView, TimeLeft, duration
from rtcore.experiments.records import CellRecord, Cost, cell_file, read_record, read_sweep, record_of, write_record
from rtcore.experiments.sweepfile import Cell, cells_of, load_sweep
from rtcore.report.terminal import Terminal
from rtcore.results.run_record import Episode
from tests.support.sweeps import RANDOM_PLAY

pytestmark = pytest.mark.unit

HZ = Fraction(50)
COST = Cost(cpu_s=1.0, wall_s=2.0, host="here")
SWEEP = "seeds = 2\ndelays = [1, 3]\nepisodes = 2\nticks = 120\n" + RANDOM_PLAY
LEARNS = '[[agents]]\nname = "learner"\npolicy = "mlp"\nlearn = "dqn"\nworkers = "delay"\nlearning-starts = 20\n'


def file_of(tmp_path: Path, text: str = SWEEP) -> Path:
    (tmp_path / "few.toml").write_text(text)
    return tmp_path / "few.toml"


def cells(tmp_path: Path, text: str = SWEEP) -> list[Cell]:
    return cells_of(load_sweep(file_of(tmp_path, text)))


class Here:
    """Plays one cell after another, in this process. `raising`: cells that fail, by name."""

    def __init__(self, scratch: Path, *, raising: Mapping[str, str] | None = None, places: int = 3) -> None:
        self.places = places
        self.began: list[str] = []
        self._raising = dict(raising or {})
        self._scratch = scratch
        self._waiting: list[tuple[Cell, Fraction]] = []

    def start(self, cell: Cell, rate_hz: Fraction) -> None:
        self.began.append(cell.name)
        self._waiting.append((cell, rate_hz))

    def poll(self, timeout_s: float) -> list[Ended]:
        cell, rate_hz = self._waiting.pop()  # the newest first: cells end in any order
        if cell.name in self._raising:
            return [Ended(cell, COST, error=self._raising[cell.name], traceback="in a world")]
        return [Ended(cell, COST, play_cell(cell, rate_hz, self._scratch).model_dump(mode="json"))]

    def shares(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


class Said:
    """A view that remembers."""

    def __init__(self) -> None:
        self.records: list[CellRecord] = []

    def update(self, shares: Mapping[str, float]) -> None:
        pass

    def ended(self, record: CellRecord) -> None:
        self.records.append(record)


def played(tmp_path: Path, backend: Here, some: list[Cell] | None = None) -> list[CellRecord]:
    """What is left of the sweep, played into tmp_path/out; returns what failed."""
    some = cells(tmp_path) if some is None else some
    sweep.begin_sweep(tmp_path / "out", tmp_path / "few.toml", some)
    left = sweep.find(tmp_path / "out", some).left
    try:
        return sweep.play_cells(tmp_path / "out", left, dict.fromkeys((c.name for c in left), HZ), backend, Said())
    finally:
        sweep.end_sweep(tmp_path / "out")


# -- one cell --------------------------------------------------------------------------------------------------------


def test_a_cell_that_learns_trains_plays_and_comes_to_the_same_numbers_again(tmp_path: Path):
    cell = next(cell for cell in cells(tmp_path, SWEEP + LEARNS) if cell.learns and cell.delay_ticks == 3)
    results, shares = [], []
    for number in ("first", "second"):
        results.append(play_cell(cell, HZ, tmp_path / number, shares.append))
    first, second = results
    assert first == second
    assert (len(first.returns), first.delay_ticks.min, first.delay_ticks.max, first.workers) == (2, 3, 3, 3)
    assert first.updates > 0
    assert first.curve
    assert first.curve[-1][0] <= 120
    assert max(shares) == 1.0
    other = replace(cell, settings=cell.settings | {"seed": 5})
    assert play_cell(other, HZ, tmp_path / "third") != first
    # What is required of the judged run alone; kept, it changes nothing.
    kept, broken = (replace(cell, evaluation={"require": [f"jobs{sign}1"]}) for sign in (">=", "<="))
    assert play_cell(kept, HZ, tmp_path / "fourth") == first
    with pytest.raises(ContractBroken, match="jobs<=1: "):
        play_cell(broken, HZ, tmp_path / "fifth")


def test_a_cell_that_never_comes_to_learn_fails(tmp_path: Path):
    late = SWEEP + LEARNS.replace("= 20", "= 2000")
    cell = next(cell for cell in cells(tmp_path, late) if cell.learns)
    with pytest.raises(RtcoreError, match="nothing was learned in 120 ticks: .* learning_starts is 2000"):
        play_cell(cell, HZ, tmp_path / "scratch")


def test_what_a_schedule_does_is_what_the_cell_is_about_or_the_cell_fails(tmp_path: Path):
    by_agent = {(cell.axes["agent"], cell.delay_ticks): cell for cell in cells(tmp_path)}
    sequential = play_cell(by_agent["sequential", 3], HZ, tmp_path)
    assert (sequential.delay_ticks.max, sequential.interval_ticks.min, sequential.interval_ticks.max) == (3, 3, 3)
    staggered = play_cell(by_agent["staggered", 3], HZ, tmp_path)
    assert (staggered.delay_ticks.max, staggered.interval_ticks.max) == (3, 1)
    one = by_agent["sequential", 1]
    with pytest.raises(RtcoreError, match="the plan's delay is 1 ticks; expected 2"):
        # A latency that was said by the settings would be another than the delay's: the sweep file refuses that.
        play_cell(replace(one, axes=one.axes | {"delay_ticks": 2}), HZ * 4, tmp_path)


def test_episodes_that_do_not_end_are_an_error_that_says_what_to_do(tmp_path: Path):
    cell = replace(cells(tmp_path)[0], most_episode_ticks=3, episodes=4)
    with pytest.raises(RtcoreError, match=r"0 of 4 episodes ended within 12 ticks; .*most-episode-ticks"):
        play_cell(cell, HZ, tmp_path)


def test_without_episodes_so_many_ticks_are_played(tmp_path: Path):
    result = play_cell(replace(cells(tmp_path)[0], episodes=0), HZ, tmp_path)
    assert result.ticks == 120
    assert sum(result.episode_ticks) <= 120


def test_a_curve_has_a_point_for_each_hundredth_of_the_training_in_which_episodes_ended():
    episodes = [Episode(3, 4, 10.0), Episode(9, 6, 20.0), Episode(510, 500, 7.0), Episode(999, 5, 1.0)]
    assert curve_of(episodes, 1000) == [(10, 15.0), (520, 7.0), (1000, 1.0)]


# -- the folder ------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written_and_one_that_is_damaged_is_named(tmp_path: Path):
    assert played(tmp_path, Here(tmp_path)) == []
    found = read_sweep(tmp_path / "out")
    assert [record.name for record in found.cells] == [cell.name for cell in cells(tmp_path)]
    record = found.cells[0]
    assert record.settings["latency"] == "constant:10.0"
    path = cell_file(tmp_path / "out", record.name)
    assert json.loads(path.read_text())["fingerprint"] == record.fingerprint
    for damage in (path.read_bytes()[:100], b"[]", path.read_bytes().replace(b'"returns"', b'"retruns"')):
        path.write_bytes(damage)
        with pytest.raises(ConfigError, match=record.name):
            read_record(path)


def test_finished_cells_are_not_played_again_and_those_of_other_settings_are(tmp_path: Path):
    played(tmp_path, Here(tmp_path))
    again = Here(tmp_path)
    played(tmp_path, again)
    assert again.began == []
    changed = cells(tmp_path, SWEEP.replace("workers = 1", "workers = 1\non-missing = 'repeat'"))
    assert len(read_sweep(tmp_path / "out").cells) == 8
    played(tmp_path, again, changed)
    assert sorted(again.began) == sorted(cell.name for cell in changed if cell.axes["agent"] == "sequential")


def test_records_of_other_settings_are_not_mixed_with_those_of_the_sweep(tmp_path: Path):
    played(tmp_path, Here(tmp_path))
    fewer = cells(tmp_path, SWEEP.replace("delays = [1, 3]", "delays = [3]").replace("episodes = 2", "episodes = 3"))
    sweep.begin_sweep(tmp_path / "out", tmp_path / "few.toml", fewer)
    found = read_sweep(tmp_path / "out")
    assert (found.cells, found.missing) == ([], [cell.name for cell in fewer])
    assert len(found.stale) == 8, "four of a delay that is not there any more, four of other episodes"


def test_what_is_only_shown_changes_without_playing(tmp_path: Path):
    played(tmp_path, Here(tmp_path))
    again = Here(tmp_path)
    played(tmp_path, again, cells(tmp_path, SWEEP.replace('"staggered"\n', '"staggered"\nrole = "best"\n')))
    assert again.began == []
    assert {record.role for record in read_sweep(tmp_path / "out").cells} == {"best", None}


def test_a_cell_that_fails_is_kept_with_its_error_ends_no_other_and_is_tried_again(tmp_path: Path):
    name = cells(tmp_path)[2].name
    (failed,) = played(tmp_path, Here(tmp_path, raising={name: "EnvironmentFailed: no"}))
    found = read_sweep(tmp_path / "out")
    assert (failed.name, found.failed, len(found.cells)) == (name, [failed], 7)
    assert failed.error == "EnvironmentFailed: no\nin a world"
    again = Here(tmp_path)
    assert sweep.find(tmp_path / "out", cells(tmp_path)).failed_before == {name}
    assert (played(tmp_path, again), again.began) == ([], [name])


def test_order_and_company_change_no_number(tmp_path: Path):
    (tmp_path / "other").mkdir()
    played(tmp_path, Here(tmp_path))
    played(tmp_path / "other", Here(tmp_path, places=1), list(reversed(cells(tmp_path))))
    one, other = (
        sorted(read_sweep(path / "out").cells, key=lambda record: record.name)
        for path in (tmp_path, tmp_path / "other")
    )
    assert one == other


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_reserve", [True, False])
def test_a_full_disk_loses_no_finished_cell_that_it_has_room_kept_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_reserve: bool
):
    """From the third record on the disk is full; only what is freed makes room."""
    backend = Here(tmp_path, places=3)

    def write(folder: Path, record: CellRecord) -> None:
        written = len(list((folder / "cells").glob("*.json"))) if (folder / "cells").is_dir() else 0
        if written >= 2 and (not has_reserve or (folder / ".reserve").exists()):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_record(folder, record)

    monkeypatch.setattr(sweep, "write_record", write)
    with pytest.raises(
        RecordError, match="No space left on device; no further cell was begun.*same command"
    ) as refused:
        played(tmp_path, backend)
    found = read_sweep(tmp_path / "out")
    # Two were written, the third was refused, and two more were being played then.
    assert len(backend.began) == 5
    assert len(found.cells) == (5 if has_reserve else 2)
    assert ("all that were finished" in str(refused.value)) == has_reserve
    lost = set(backend.began) - {record.name for record in found.cells}
    assert all(name in str(refused.value) for name in lost)
    monkeypatch.undo()
    assert played(tmp_path, Here(tmp_path)) == []
    assert len(read_sweep(tmp_path / "out").cells) == 8


# -- what is shown -------------------------------------------------------------------------------------------------


def test_a_terminal_shows_how_far_it_is_and_a_pipe_a_line_for_each_cell(tmp_path: Path):
    first, second, *_ = cells(tmp_path)
    record = record_of(first, HZ, COST, play_cell(first, HZ, tmp_path), ["a reward was strange"])
    failed = record_of(second, HZ, COST, "EnvironmentFailed: no\nTraceback", ())
    shown = {}
    for is_terminal in (True, False):
        console = Terminal(file=io.StringIO(), force_terminal=is_terminal, width=200)
        with SweepView(console, [first, second], [], 1) as view:
            view.update({first.name: 0.4})
            view.ended(record)
            view.update({second.name: 0.5})
            view.ended(failed)
        shown[is_terminal] = console.file.getvalue()
    for text in shown.values():
        assert f"1/2 {first.name}: mean return" in text
        assert "note: a reward was strange" in text
        assert f"2/2 {second.name}: FAILED: EnvironmentFailed: no" in text
    assert shown[False].count("\n") == 3
    assert f"{second.name} 50%" in shown[True]
    assert "2 s left" in shown[False], "what the first one took"


# -- how long it takes -----------------------------------------------------------------------------------------------


def test_the_time_left_is_what_cells_of_a_kind_took_before(tmp_path: Path):
    first, second, third, fourth = (cell for cell in cells(tmp_path) if cell.delay_ticks == 3)
    assert first.axes["agent"] == third.axes["agent"] != second.axes["agent"]

    def took(cell: Cell, wall_s: float) -> CellRecord:
        result = play_cell(cell, HZ, tmp_path)
        return record_of(cell, HZ, Cost(cpu_s=1.0, wall_s=wall_s, host=""), result, ())

    left = TimeLeft([second, third, fourth], [took(first, 10.0)], places=1)
    assert left.left_s({}, {}) == 30.0, "of one kind, else as all"
    left.ended(took(second, 100.0))
    assert left.left_s({}, {}) == 110.0
    assert left.left_s({third.name: 0.5}, {third.name: 20.0}) == 120.0, "what it has done so far says it better"
    both = TimeLeft([third, fourth], [took(first, 10.0), took(second, 100.0)], places=2)
    assert both.left_s({}, {}) == 100.0, "the longest one is not divided"
    assert str(TimeLeft([third], [], places=2).left_s({third.name: 0.01}, {third.name: 2.0})) == "nan"
    assert [duration(seconds) for seconds in (8, 720, 12_000)] == ["8 s", "12 min", "3 h 20 min"]
