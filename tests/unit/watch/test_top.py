"""rtcore-top on runs made up in shared memory: what is listed, found and shown, and what it says when it cannot be."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rtcore.cli import top
from rtcore.config.resolved import ResolvedRun, resolve
from rtcore.config.run import make_config
from rtcore.errors import ConfigError, LayoutMismatchError, SharedMemoryError
from rtcore.memory.counters import Words
from rtcore.memory.layout import LAYOUT_VERSION, SEGMENT_HEADER, FrameHeader, Layout
from rtcore.memory.owners import run_ids
from rtcore.memory.segments import SHM_DIR, attach_segment, create_segment, new_run_id, segment_name, unlink_all
from rtcore.memory.shared import Phase, SharedRun
from rtcore.profile.transports import Ring
from rtcore.results.description import RunDescription
from rtcore.results.summary import build_summary
from rtcore.scheduling.dispatch import Outcome, TickKind
from rtcore.scheduling.planner import Tau, make_plan
from rtcore.spaces import ObservationSpec
from rtcore.watch import visible
from rtcore.watch.attached import SUMMARY_KEYS, AttachedRun, RunState
from rtcore.watch.visible import RunRow, find_run, list_runs

pytestmark = pytest.mark.unit

RING_SLOTS = 64
OBSERVATION = ObservationSpec((8,), "uint8", (0,), (255,))
LAYOUT = Layout(max_workers=2, ring_slots=RING_SLOTS, log_slots=32, frame_bytes=8, action_bytes=8, chunk=1)
TRACED = replace(LAYOUT, trace_slots=8)
RUN = resolve(
    make_config(
        env_id="Toy-v0", policy="synthetic", policy_args={"latency_ms": 30}, workers=2, duration=10, wait="block"
    ),
    Fraction(50),
    64,
)
REHEARSAL_SEQ, RUN_SEQ = 3, 5
PERIOD_NS = 20_000_000


class MadeUpRun:
    """A run's memory, owned by this process; supervisor and env process do what the test tells them."""

    def __init__(self, layout: Layout = LAYOUT) -> None:
        self.run_id = new_run_id()
        self.shared = SharedRun.create(self.run_id, layout, OBSERVATION)
        self.ticks = 0

    def tell(self, **fields: Any) -> None:
        """The supervisor says what the run consists of."""
        tau = Tau.of([30_000_000], [0])
        plan = make_plan("max-time", tau, Fraction(50), workers=2, max_workers=2, guard_ns=0, device_parallelism=2.0)
        world = {"env_id": "Toy-v0", "observation": OBSERVATION.to_json(), "step_ns": 1}
        told: dict[str, Any] = {"program": "train.py [x]", "run": RUN}
        told |= {"world": world, "policy": {"policy": "synthetic 30 ms", "device": "cpu"}, "devices": ["cpu", "cpu"]}
        told |= {"run_id": self.run_id, "plan": plan, "startup": {"world": 1.0}, "started_unix_s": 1e9}
        about = RunDescription(**told | fields)
        self.shared.description.write(about.to_text())

    def enter(self, phase: Phase, phase_seq: int) -> None:
        self.shared.run_control["phase"] = phase
        self.shared.run_control["phase_seq"] = phase_seq

    def begin(self) -> None:
        """Up to just before the first tick."""
        self.tell()
        self.enter(Phase.RUN, RUN_SEQ)
        self.shared.env_status["first_frame_seq"] = self.shared.ring.next_seq
        self.shared.env_counters.clear()
        self.ticks = 0

    def tick(self, count: int = 1, phase_seq: int = RUN_SEQ) -> None:
        """The env process counts and publishes, as at any tick with an action."""
        counters = self.shared.env_counters
        for _ in range(count):
            tick, self.ticks = self.ticks, self.ticks + 1
            start_ns = tick * PERIOD_NS
            counters["last_start_ns"] = start_ns
            counters.add("ticks")
            counters.add("acted")
            self.shared.env_histograms["lateness_ns"].add(4000)
            header = FrameHeader(
                frame_seq=self.shared.ring.next_seq,
                tick=tick,
                deadline_ns=start_ns,
                start_ns=start_ns + 4000,
                publish_ns=start_ns + 9000,
                step_ns=5000,
                kind=TickKind.ACTED,
                reward=1.0,
                episode_return=1.0,
                episode_ticks=tick,
                worker=tick % 2,
                obs_tick=tick - 2,
                due_tick=tick,
                chunk_index=0,
                outcome=Outcome.ON_TIME,
                policy_version=0,
                dispatch_ns=start_ns,
                phase_seq=phase_seq,
            )
            self.shared.ring.publish(np.zeros(8, np.uint8), header, bytes(8))

    def overwrite_head(self, part: Any = "control", **fields: int) -> None:
        header = Words(SEGMENT_HEADER, attach_segment(self.run_id, part).buf)
        for field, value in fields.items():
            header[field] = value


@pytest.fixture
def make_run() -> Iterator[Callable[..., MadeUpRun]]:
    runs: list[MadeUpRun] = []

    def make(layout: Layout = LAYOUT) -> MadeUpRun:
        runs.append(MadeUpRun(layout))
        return runs[-1]

    yield make
    for run in runs:
        unlink_all(run.run_id)


@pytest.fixture
def run(make_run: Callable[..., MadeUpRun]) -> MadeUpRun:
    return make_run()


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """As if no other runs were on the machine: it is shared."""

    def show_only(*runs: MadeUpRun) -> None:
        monkeypatch.setattr(visible, "visible_run_ids", lambda: sorted(run.run_id for run in runs))

    return show_only


def row_of(run: MadeUpRun) -> RunRow:
    (row,) = [row for row in list_runs() if row.run_id == run.run_id]
    return row


def mapped(run: MadeUpRun) -> str:
    """How this process maps the run: its lines of /proc/self/maps."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return "\n".join(line for line in lines if run.run_id in line)


# -- the list ----------------------------------------------------------------------------------------------


def test_the_list_follows_a_run_from_its_start_to_its_end(run):
    assert row_of(run).state is RunState.STARTING
    run.enter(Phase.REHEARSE, REHEARSAL_SEQ)
    run.tick(9, REHEARSAL_SEQ)
    row = row_of(run)
    assert (row.state, row.ticks, row.acted_fraction) == (RunState.REHEARSING, None, None)
    run.begin()
    run.tick(7)
    row = row_of(run)
    assert (row.state, row.ticks, row.acted_fraction) == (RunState.RUNNING, 7, 1.0)
    assert (row.world, row.policy, row.program) == ("Toy-v0", "synthetic 30 ms", "train.py [x]")
    run.shared.env_status["finished"] = 1
    assert row_of(run).state is RunState.FINISHED


def test_a_run_that_has_not_said_what_it_is_shows_its_process_and_when_its_memory_was_made(run):
    row = row_of(run)
    assert row.program == " ".join(psutil.Process().cmdline())
    assert 0 <= row.age_s < 3600
    assert row.world is None


def test_a_dead_owner_a_foreign_layout_and_a_container_are_told_apart(make_run):
    dead, old, elsewhere = make_run(), make_run(), make_run()
    for run in (dead, old, elsewhere):
        run.begin()
        run.tick(3)
    dead.overwrite_head(owner_start_ticks=1)
    old.overwrite_head(layout_version=LAYOUT_VERSION - 1)
    elsewhere.overwrite_head(owner_pid_namespace=1, owner_start_ticks=1)
    assert row_of(dead).state is RunState.DEAD_OWNER
    assert row_of(dead).ticks == 3
    assert row_of(old).state is RunState.OTHER_LAYOUT
    assert f"layout version {LAYOUT_VERSION - 1}" in row_of(old).note
    assert row_of(elsewhere).state is RunState.RUNNING
    assert "container" in row_of(elsewhere).note


def test_the_list_prints_a_table_and_the_same_as_json(run, only_ours, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    run.begin()
    run.tick(1234)
    only_ours(run)
    assert top.run(["--list"]) == 0
    table = capsys.readouterr().out
    for text in (run.run_id, "running", "1,234", "100%", "Toy-v0", "train.py [x]"):
        assert text in table
    assert top.run(["--list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run_id"], row["ticks"], row["state"]) == (run.run_id, 1234, "running")


def test_no_run_is_an_empty_list_and_no_failure(only_ours, capsys):
    only_ours()
    assert top.run(["--list"]) == 0
    assert "no runs" in capsys.readouterr().out
    assert top.run(["--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


# -- which run ---------------------------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_by_a_unique_beginning_and_alone(make_run, only_ours):
    one, two = make_run(), make_run()
    only_ours(one, two)
    assert find_run(one.run_id) == one.run_id
    assert find_run(two.run_id[:-1]) == two.run_id
    with pytest.raises(ConfigError, match="2 runs are under way"):
        find_run(None)
    with pytest.raises(ConfigError, match="beginning of several"):
        find_run(one.run_id.split("-")[0])
    with pytest.raises(ConfigError, match="no run 'nonesuch'"):
        find_run("nonesuch")
    one.overwrite_head(owner_start_ticks=1)
    assert find_run(None) == two.run_id


@pytest.mark.parametrize(
    ("arguments", "exitcode", "says"),
    [
        ([], 1, "no run is under way"),
        (["--once"], 1, "no run is under way"),
        (["12"], 2, "no run '12'"),
    ],
)
def test_without_a_run_the_exit_code_tells_a_failure_from_wrong_use(only_ours, capsys, arguments, exitcode, says):
    only_ours()
    assert top.run(arguments) == exitcode
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--json"], "needs --once"),
        (["--list", "--once"], "not allowed with"),
        (["--list", "12"], "--list shows all runs"),
        (["--interval", "0"], "expected 0.1 to 3600"),
        (["--interval", "nan"], "expected 0.1 to 3600"),
        (["--once", "--interval", "1"], "leave it out"),
        (["--lst"], "unrecognized arguments"),
    ],
)
def test_wrong_use_is_said_and_exits_2(capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        top.run(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        top.run(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "rtcore-top --once --json" in text


def test_a_dead_owner_and_a_foreign_layout_are_refused_with_a_sentence(make_run, capsys):
    dead, old = make_run(), make_run()
    dead.overwrite_head(owner_start_ticks=1)
    old.overwrite_head(layout_version=LAYOUT_VERSION + 1)
    assert top.run([dead.run_id]) == 1
    assert "was killed and could not clean up" in capsys.readouterr().err
    assert top.run([old.run_id, "--once"]) == 1
    assert f"layout version {LAYOUT_VERSION + 1}" in capsys.readouterr().err


def test_a_run_that_describes_itself_in_unknown_words_is_refused(run, monkeypatch):
    known = RUN.to_jsonable()
    told = known | {"config": known["config"] | {"setting_of_tomorrow": 1}}
    monkeypatch.setattr(ResolvedRun, "to_jsonable", lambda _: told)
    run.tell()
    with pytest.raises(LayoutMismatchError, match="setting_of_tomorrow"):
        AttachedRun.attach(run.run_id)


# -- one run -----------------------------------------------------------------------------------------------


def test_a_run_is_mapped_without_the_right_to_write(run):
    run.begin()
    run.tick(3)
    gc.collect()
    own = mapped(run).count("rw-s")
    with AttachedRun.attach(run.run_id) as onlooker:
        assert onlooker.has_begun
        assert mapped(run).count("r--s") == 5
        assert mapped(run).count("rw-s") == own
        with pytest.raises(TypeError):
            onlooker._shared.run_control["phase"] = Phase.STOP
        with pytest.raises(TypeError):
            onlooker._shared.env_histograms["lateness_ns"].add(1)
    assert run.shared.run_control["phase"] == Phase.RUN


def test_letting_go_gives_the_memory_back(run):
    run.begin()
    run.tick(3)
    with AttachedRun.attach(run.run_id) as onlooker:
        onlooker.refresh()
    gc.collect()
    assert "r--s" not in mapped(run)
    assert len(onlooker.record.ticks) == 3


def test_the_record_begins_with_the_oldest_rows_of_the_run_and_none_counts_as_lost(run):
    run.enter(Phase.REHEARSE, REHEARSAL_SEQ)
    run.tick(20, REHEARSAL_SEQ)
    run.begin()
    run.tick(10)
    with AttachedRun.attach(run.run_id) as onlooker:
        assert [row.tick for row in onlooker.record.ticks] == list(range(10))
        run.tick(5)
        onlooker.refresh()
        assert [row.tick for row in onlooker.record.ticks] == list(range(15))
    run.tick(500)
    with AttachedRun.attach(run.run_id) as onlooker:
        ticks = [row.tick for row in onlooker.record.ticks]
        assert ticks == list(range(ticks[0], 515))
        assert RING_SLOTS * 3 // 4 < len(ticks) <= RING_SLOTS
        assert onlooker.record.lost_ticks == 0
        run.tick(3 * RING_SLOTS)
        onlooker.refresh()
        assert onlooker.record.lost_ticks > 0


def test_what_the_rehearsal_counted_is_never_shown(run):
    run.enter(Phase.REHEARSE, REHEARSAL_SEQ)
    run.tick(20, REHEARSAL_SEQ)
    with AttachedRun.attach(run.run_id) as onlooker:
        assert not onlooker.has_begun
        run.enter(Phase.IDLE, REHEARSAL_SEQ + 1)
        run.tell()
        onlooker.refresh()
        assert (onlooker.state(), onlooker.has_begun) == (RunState.RUNNING, False)
        run.begin()
        onlooker.refresh()
        assert not onlooker.has_begun
        run.tick()
        onlooker.refresh()
        assert onlooker.stats().counters["ticks"] == 1


def test_a_traced_run_is_shown_without_the_counts_of_its_trace(make_run, capsys):
    run = make_run(TRACED)
    run.begin()
    run.tick(3)
    assert top.run([run.run_id, "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace"] == {"events": None, "lost_events": None}


def test_a_run_that_could_not_say_what_it_is_is_running_and_not_shown(run, capsys):
    run.tell(program="x" * LAYOUT.description_bytes)
    run.enter(Phase.RUN, RUN_SEQ)
    run.tick(3)
    assert row_of(run).state is RunState.RUNNING
    assert top.run([run.run_id, "--once"]) == 0
    assert "too long for its shared memory" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["description", "slots", "log", "trace"])
def test_a_run_whose_memory_is_being_made_is_starting(make_run, missing):
    run = make_run(TRACED)
    path = SHM_DIR / segment_name(run.run_id, missing)[1:]
    whole = path.read_bytes()
    path.unlink()
    with AttachedRun.attach(run.run_id) as onlooker:
        assert (onlooker.state(), onlooker.ending()) == (RunState.STARTING, None)
        path.write_bytes(b"")
        onlooker.refresh()
        assert onlooker.state() is RunState.STARTING
        path.write_bytes(whole)
        onlooker.refresh()
        assert onlooker.phase is Phase.IDLE
        assert onlooker._shared is not None


def test_a_control_segment_without_a_head_yet_is_starting():
    run_id = new_run_id()
    path = SHM_DIR / segment_name(run_id, "control")[1:]
    try:
        path.write_bytes(bytes(4096))
        with AttachedRun.attach(run_id) as onlooker:
            assert (onlooker.state(), onlooker.owner.pid) == (RunState.STARTING, -1)
            path.unlink()
            for part in ("control", "slots", "ring", "log", "description"):
                create_segment(run_id, part, LAYOUT)  # stamped, rings not emptied: the text reads as nothing
            onlooker.refresh()
            assert (onlooker.state(), onlooker.about) == (RunState.STARTING, None)
            assert onlooker.owner.pid > 0
            unlink_all(run_id)
            onlooker.refresh()
            assert onlooker.ending() == "its shared memory was removed"
    finally:
        unlink_all(run_id)


@pytest.fixture
def headless() -> Iterator[tuple[str, Path]]:
    """Id and control segment of a run that this process began to make."""
    run_id = new_run_id()
    path = SHM_DIR / segment_name(run_id, "control")[1:]
    path.write_bytes(bytes(4096))
    yield run_id, path
    unlink_all(run_id)


def grow_old(path: Path) -> None:
    made_s = path.stat().st_mtime
    os.utime(path, (made_s - 60, made_s - 60))


@pytest.mark.parametrize("arguments", [[], ["--once"], ["--once", "--json"]], ids=" ".join)
def test_a_run_that_was_never_made_to_its_end_is_broken_and_refused_with_what_removes_it(headless, capsys, arguments):
    run_id, path = headless
    grow_old(path)
    assert top.run([run_id, *arguments]) == 1
    shown = capsys.readouterr()
    assert f"run {run_id} is broken" in shown.err
    assert f"rm /dev/shm/*rtcore-{run_id}-*" in shown.err
    assert shown.out == ""


def test_a_start_that_is_watched_and_never_ends_is_given_up(headless):
    run_id, path = headless
    with AttachedRun.attach(run_id) as onlooker:
        assert onlooker.state() is RunState.STARTING
        grow_old(path)
        with pytest.raises(SharedMemoryError, match=rf"is broken.*rm /dev/shm/\*rtcore-{run_id}-"):
            onlooker.refresh()


def test_a_broken_run_is_listed_with_what_removes_it_and_is_no_run_to_choose(run, headless, monkeypatch, capsys):
    run_id, path = headless
    grow_old(path)
    monkeypatch.setattr(visible, "visible_run_ids", lambda: [run.run_id, run_id])
    (row,) = [row for row in list_runs() if row.run_id == run_id]
    assert (row.state, row.pid, row.ticks) == (RunState.BROKEN, None, None)
    assert f"rm /dev/shm/*rtcore-{run_id}-*" in row.note
    assert find_run(None) == run.run_id
    assert top.run(["--list"]) == 0
    assert "broken" in capsys.readouterr().out
    run.overwrite_head(owner_start_ticks=1)
    with pytest.raises(SharedMemoryError, match=r"no run is under way.*2 cannot be attached to"):
        find_run(None)


def test_a_ring_of_a_measurement_is_no_run(run):
    ring = Ring((8,), 1)
    try:
        assert ring.run_id in run_ids()
        assert run.run_id in visible.visible_run_ids()
        assert ring.run_id not in visible.visible_run_ids()
        with pytest.raises(ConfigError, match=rf"no run '{ring.run_id}'"):
            find_run(ring.run_id)
    finally:
        ring.close()


def test_the_json_of_a_starting_run_has_every_key_and_no_number(run, capsys):
    assert top.run([run.run_id, "--once", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["run_id"], shown["state"], shown["config"]) == (run.run_id, "starting", None)
    assert all(shown[key] is None for key in SUMMARY_KEYS)


def test_the_json_has_the_keys_of_the_summary_and_says_what_only_the_run_itself_knows(run, capsys):
    run.begin()
    run.tick(40)
    assert top.run([run.run_id, "--once", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    with AttachedRun.attach(run.run_id) as onlooker:
        keys = {*build_summary(onlooker.stats()), "leftover_shared_memory"}
    assert keys == set(SUMMARY_KEYS)
    assert set(shown) == keys | {"run_id", "pid", "program", "state", "phase", "config"}
    assert (shown["ticks"]["count"], shown["actions"]["acted_fraction"], shown["phase"]) == (40, 1.0, "run")
    assert shown["ticks"]["lateness_us"]["max"] == 4.0
    assert shown["record"] == {"lost_ticks": None, "lost_jobs": None}
    assert shown["config"] == RUN.config.to_jsonable()


def test_one_view_is_printed_with_every_lane(run, capsys):
    run.begin()
    run.tick(40)
    assert top.run([run.run_id, "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for label in ("world", "stagger", "actions", "w00", "w01", "tick", "time"):
        assert any(line.startswith(label) for line in lines), label
    assert sum(run.run_id in line for line in lines) == 1


def test_a_run_that_is_over_when_it_is_first_looked_at_is_shown_with_its_last_numbers(run, capsys):
    run.begin()
    run.tick(40)
    run.shared.env_status["finished"] = 1
    run.enter(Phase.STOP, RUN_SEQ + 1)
    assert top.run([run.run_id]) == 0
    shown = capsys.readouterr().out
    assert "acted 100%" in shown
    assert "run over" in shown


def test_a_run_that_ends_before_its_first_tick_is_no_view(run, capsys):
    run.enter(Phase.STOP, 1)
    assert top.run([run.run_id, "--once"]) == 1
    assert "over before its first tick" in capsys.readouterr().err
    assert top.run([run.run_id]) == 0
    assert "run over" in capsys.readouterr().out


def test_another_users_run_names_the_user(run, monkeypatch):
    really = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).startswith("/dev/shm/"):
            raise PermissionError(13, "Permission denied")
        return really(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    row = row_of(run)
    assert row.state is RunState.NO_PERMISSION
    assert row.user in row.note
    with pytest.raises(SharedMemoryError, match=f"belongs to user {row.user}"):
        AttachedRun.attach(run.run_id)
