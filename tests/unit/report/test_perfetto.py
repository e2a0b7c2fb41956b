"""The Perfetto trace of hand-written events: nesting, flows, what is said when something is missing."""

import csv
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import ConfigError
from rtcore.memory.layout import LAYOUT_VERSION, TRACE_EVENT, FrameHeader
from rtcore.memory.trace import SPOOL_HEAD, SPOOL_MAGIC, TraceKind, spool_head
from rtcore.report.perfetto import writer as perfetto
from rtcore.report.perfetto.events import ANNOUNCE, JOB_SPAN, map_spool, windows, with_spans
from rtcore.report.perfetto.writer import TRACE_FILE, convert_folder
from rtcore.results.rows import TICKS, TickRow
from rtcore.scheduling.dispatch import Outcome, TickKind
from tests.support.drawn import examples
from tests.support.made_up_trace import K, events, job, tick
from tests.support.tracecheck import Parsed, parse

pytestmark = pytest.mark.unit


def spool(folder, **processes):
    for name, rows in processes.items():
        (folder / f"trace-{name}.events").write_bytes(spool_head() + rows.tobytes())


def converted(folder, **processes) -> Parsed:
    spool(folder, **processes)
    return parse(convert_folder(folder))


def test_a_job_can_be_followed_from_its_frame_to_the_tick_that_applies_it(tmp_path):
    env = events(
        *tick(0, 1000, frame=7),
        (K.OUTCOME, 1090, 1090, 0, 0, -1, -1, Outcome.UNFINISHED),
        *tick(1, 2000, worker=0, booked=0, first_use=1, frame=8),
    )
    parsed = converted(tmp_path, env=env, worker0=events(*job(0, 0, 7, 1060)))
    (ends,) = parsed.flows.values()
    assert [(end.lane, end.name) for end in ends] == [
        ("env", "publish frame"),
        ("worker 0", "read frame"),
        ("worker 0", "inference"),
        ("worker 0", "write answer"),
        ("env", "dispatch"),
    ]
    assert ends[0].notes["frame_seq"] == 7
    assert ends[-1].notes["tick"] == 1


@pytest.mark.parametrize("was_killed", (False, True))
def test_the_head_has_a_lane_of_its_own_and_features_are_followed_to_the_ticks_that_used_them(tmp_path, was_killed):
    if was_killed:  # without a summary
        acted = {"tick": 1, "worker": 9, "obs_tick": 0, "features_tick": 0, "features_worker": 0}
        row = TickRow.of(FrameHeader(**dict.fromkeys(FrameHeader._fields, 0) | acted))
        with (tmp_path / "actions.csv").open("w", newline="") as file:
            csv.writer(file).writerows([TICKS.columns, TICKS.written(row)])
    else:
        (tmp_path / "summary.json").write_text(json.dumps({"head": {"index": 9}}))
    env = events(
        *tick(0, 1000, frame=7),
        *tick(1, 2000, worker=9, booked=0, first_use=1, frame=8),
        (K.FEATURES, 2085, 2085, 1, 0, 0),
        *tick(2, 3000, worker=0, booked=1, first_use=1, frame=9),
    )
    parsed = converted(tmp_path, env=env, worker0=events(*job(0, 0, 7, 1060)), worker9=events(*job(9, 0, 7, 1055)))
    assert [(end.lane, end.notes["tick"]) for end in parsed.named("dispatch head")] == [("env", 1)]
    assert [end.notes["tick"] for end in parsed.named("dispatch")] == [2]
    followed = [[(end.lane, end.name) for end in ends][-2:] for ends in parsed.flows.values()]
    assert [("worker 0", "write answer"), ("env", "features used")] in followed
    assert [("head", "write answer"), ("env", "dispatch head")] in followed


def test_two_workers_that_read_one_frame_are_two_flows_from_it(tmp_path):
    parsed = converted(
        tmp_path,
        env=events(*tick(0, 1000, frame=3)),
        worker0=events(*job(0, 0, 3, 1050)),
        worker1=events(*job(1, 0, 3, 1051)),
    )
    assert len(parsed.flows) == 2
    assert [ends[0].name for ends in parsed.flows.values()] == ["publish frame"] * 2


def test_a_job_of_which_only_one_event_is_left_has_no_arrow(tmp_path):
    parsed = converted(tmp_path, env=events(*tick(1, 1000, worker=0, booked=0, first_use=1, frame=1)))
    assert parsed.flows == {}
    assert len(parsed.named("dispatch")) == 1


def test_an_action_that_is_applied_again_ends_no_second_flow(tmp_path):
    env = events(
        *tick(0, 1000, frame=0),
        *tick(1, 2000, worker=0, booked=0, first_use=1),
        *tick(2, 3000, worker=0, booked=0, first_use=0),
    )
    parsed = converted(tmp_path, env=env, worker0=events(*job(0, 0, 0, 1060)))
    (ends,) = parsed.flows.values()
    assert [end.name for end in ends].count("dispatch") == 1
    assert len(parsed.named("dispatch next of chunk")) == 1


def test_a_tick_encloses_all_that_belongs_to_it_accounting_included(tmp_path):
    parsed = converted(tmp_path, env=events(*tick(5, 1000, kind=TickKind.MISSED)))
    (whole,) = parsed.named("tick missed")
    assert (whole.start_ns, whole.end_ns, whole.notes) == (1000, 1070, {"tick": 5, "kind": "missed"})
    inner = [one for one in parsed.slices if one.depth == 1]
    assert [(one.name, one.start_ns, one.end_ns) for one in inner] == [
        ("collect answers", 1000, 1010),
        ("dispatch nothing", 1010, 1020),
        ("book jobs", 1020, 1030),
        ("step world", 1030, 1040),
        ("publish frame", 1040, 1050),
        ("announce frame", 1050, 1060),
        ("account", 1060, 1070),
    ]


def test_a_job_encloses_its_stages_and_knows_its_due_tick(tmp_path):
    env = events(*tick(0, 1000, frame=4), (K.JOB, 1020, 1020, 0, 2, 0, 4, 9))
    parsed = converted(tmp_path, env=env, worker2=events(*job(2, 0, 4, 1060)))
    (whole,) = [one for one in parsed.slices if one.name == "job"]
    assert (whole.start_ns, whole.end_ns) == (1060, 1100)
    assert whole.notes == {"worker": 2, "booked_tick": 0, "frame_seq": 4, "frame_tick": 0, "due_tick": 9}
    (compute,) = parsed.named("compute")
    assert compute.depth == 2


def test_outcomes_bear_their_names(tmp_path):
    rows = [(K.OUTCOME, 1000 + n, 1000 + n, n, 0, n, -1, outcome) for n, outcome in enumerate(Outcome)]
    parsed = converted(tmp_path, env=events(*rows))
    assert parsed.counts("job") == {outcome.name.lower(): 1 for outcome in Outcome}
    assert {one.notes["outcome"] for one in parsed.instants} == {outcome.name.lower() for outcome in Outcome}


def test_lanes_are_named_and_stand_in_order(tmp_path):
    one = events((K.IDLE, 10, 20))
    parsed = converted(tmp_path, supervisor=one, worker10=one, worker2=one, env=one)
    assert parsed.lanes == ["env", "worker 2", "worker 10", "supervisor"]


def test_the_clock_of_the_trace_is_the_monotonic_one(tmp_path):
    parsed = converted(tmp_path, env=events(*tick(0, 1000)))
    assert parsed.primary_clock == 3
    assert set(parsed.clocks) == {1, 3}


def test_counters_come_from_the_tick_by_tick_record(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": {"env_id": "World-v0", "policy": "mlp"}}))
    (tmp_path / "actions.csv").write_text(
        "tick,lateness_us,delay_ticks,start_ns\n0,2.5,,1000\n1,3.5,4,2000\n2,1.0,3,30"  # a last line cut short
    )
    parsed = converted(tmp_path, env=events(*tick(0, 1000)))
    assert parsed.counters == {"lateness": [(1000, 2.5), (2000, 3.5)], "delay": [(2000, 4.0)]}
    assert parsed.root == "rtcore World-v0 mlp"


kinds = st.sampled_from([kind for kind in TraceKind if kind not in (K.TICK, K.OUTCOME, K.DISPATCH)])
times = st.integers(1, 2000)
small = st.integers(-1, 3)


@given(st.lists(st.tuples(kinds, times, times, small, small, small, small, small), max_size=60), st.integers(1, 20))
@examples(100)
def test_whatever_the_stamps_say_slices_nest_and_every_one_ends(tmp_path_factory, rows, window_size):
    folder = tmp_path_factory.mktemp("any")
    table = events(*((kind, start, start + length, *rest) for kind, start, length, *rest in rows))
    spool(folder, env=table[::2], worker0=table[1::2])
    moments = {K.JOB, K.FEATURES, K.INTERVENTION, K.WORKER_UP, K.WORKER_DOWN}
    parsed = parse(convert_folder(folder), flows_in_order=False)
    added = len(parsed.named("announce frame")) + len([one for one in parsed.slices if one.name == "job"])
    assert len(parsed.slices) - added == sum(row[0] not in moments for row in rows)
    pieces = [window["env"] for window, _ in windows({"env": table}, window_size)]
    assert np.array_equal(np.concatenate([*pieces, table[:0]]), table)


def test_no_cut_parts_a_tick_or_a_job():
    rows = events(*(row for number in range(20) for row in tick(number, 1000 + 100 * number)))
    pieces = [window["env"] for window, _ in windows({"env": rows}, 16)]
    assert len(pieces) > 5
    assert {int(piece["kind"][-1]) for piece in pieces} == {K.ACCOUNT}
    assert sum(int((with_spans(piece)["kind"] == ANNOUNCE).sum()) for piece in pieces) == 20
    jobs = events(*(row for number in range(9) for row in job(0, number, number, 100 * number)))
    pieces = [window["worker0"] for window, _ in windows({"worker0": jobs}, 7)]
    assert sum(int((with_spans(piece)["kind"] == JOB_SPAN).sum()) for piece in pieces) == 9


def a_run_of(ticks, workers=3, period_ns=1000):
    """Events of a run in which worker k % 3 starts at tick k and is applied three ticks later."""
    env = []
    for k in range(ticks):
        at = 1000 + period_ns * k
        applied = {"worker": k % workers, "booked": k - workers, "first_use": 1} if k >= workers else {}
        env += [*tick(k, at, frame=k, **applied), (K.JOB, at + 22, at + 22, k, k % workers, k, k, k + workers)]
    lanes = {
        w: [row for k in range(w, ticks, workers) for row in job(w, k, k, 1060 + period_ns * k)] for w in range(workers)
    }
    return {"env": events(*env)} | {f"worker{w}": events(*rows) for w, rows in lanes.items()}


def test_a_long_run_is_converted_window_by_window_to_the_same_slices_and_arrows(tmp_path, monkeypatch):
    processes, parsed = a_run_of(200), []
    for size in (10**6, 64):
        monkeypatch.setattr(perfetto, "windows", lambda spools, size=size: windows(spools, size))
        parsed.append(converted(tmp_path, **processes))
    whole, pieces = parsed
    assert len(list(windows(processes, 64))) > 10
    assert sorted(whole.slices, key=repr) == sorted(pieces.slices, key=repr)
    assert len(whole.flows) > 190
    assert {key: sorted(ends, key=repr) for key, ends in whole.flows.items()} == {
        key: sorted(ends, key=repr) for key, ends in pieces.flows.items()
    }


def test_a_job_that_outlasts_many_windows_keeps_its_due_tick(tmp_path, monkeypatch):
    processes = a_run_of(200, workers=1)
    processes["worker7"] = events(*job(7, 3, 3, 150_000))
    booked = np.searchsorted(processes["env"]["start_ns"], 4000)
    processes["env"] = np.insert(processes["env"], booked, events((K.JOB, 4000, 4000, 3, 7, 3, 3, 99)))
    monkeypatch.setattr(perfetto, "windows", lambda spools: windows(spools, 64))
    parsed = converted(tmp_path, **processes)
    (whole,) = [one for one in parsed.slices if one.name == "job" and one.notes["worker"] == 7]
    assert whole.notes["due_tick"] == 99


def test_an_event_that_was_only_half_written_is_left_out(tmp_path):
    whole = events(*tick(0, 1000))
    (tmp_path / "trace-env.events").write_bytes(spool_head() + whole.tobytes() + b"half")
    (tmp_path / "trace-worker0.events").write_bytes(b"")
    assert {name: len(rows) for name, rows in map_spool(tmp_path).items()} == {"env": len(whole), "worker0": 0}
    assert len(parse(convert_folder(tmp_path)).named("tick acted")) == 1


def test_events_go_once_the_trace_is_written(tmp_path):
    converted(tmp_path, env=events(*tick(0, 1000)))
    assert [path.name for path in tmp_path.iterdir()] == [TRACE_FILE]


def test_events_stay_and_no_half_trace_is_left_if_writing_fails(tmp_path):
    spool(tmp_path, env=events(*tick(0, 1000)))

    def full(share):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        convert_folder(tmp_path, full)
    assert [path.name for path in tmp_path.iterdir()] == ["trace-env.events"]


def test_a_folder_without_events_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no trace-\*.events files: expected the folder of a run with --trace"):
        convert_folder(tmp_path)


def test_events_of_another_version_are_refused_and_stay(tmp_path, capsys):
    head = SPOOL_HEAD.pack(SPOOL_MAGIC, LAYOUT_VERSION + 1, TRACE_EVENT.num_bytes)
    (tmp_path / "trace-env.events").write_bytes(head + events(*tick(0, 1000)).tobytes())
    with pytest.raises(SystemExit) as ended:
        perfetto.main([str(tmp_path)])
    assert ended.value.code == 2
    assert f"layout version {LAYOUT_VERSION + 1} with" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["trace-env.events"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "actions.csv is missing: no curves of lateness and delay to show"),
        ("", "actions.csv is empty: no curves"),
        ("tick,late_us,delay_ticks\n0,2.5,\n", "actions.csv: no column lateness_us, start_ns"),
        ("x" * 200_000 + "\n", "actions.csv: no column lateness_us, delay_ticks, start_ns"),
    ],
    ids=["missing", "empty", "another version", "no table"],
)
def test_without_a_readable_record_the_trace_has_no_curves_and_that_is_said(tmp_path, capsys, table, said):
    if table is not None:
        (tmp_path / "actions.csv").write_text(table)
    spool(tmp_path, env=events(*tick(0, 1000)))
    perfetto.main([str(tmp_path)])
    assert said in capsys.readouterr().err
    parsed = parse(tmp_path / TRACE_FILE)
    assert (len(parsed.named("tick acted")), parsed.counters, parsed.lanes) == (1, {}, ["env"])


def test_rows_that_cannot_be_read_are_left_out_of_the_curves_and_counted(tmp_path, said):
    rows = [
        "1.5,2,1000",
        "late,2,2000",
        "1.5,2,soon",
        "1.5,many,4000",
        f"1.5,2,{10**30}",
        "2.5,,5000",
        "3.5,1,60",
    ]  # the last one is cut short
    (tmp_path / "actions.csv").write_text("\n".join(["lateness_us,delay_ticks,start_ns", *rows]))
    spool(tmp_path, env=events(*tick(0, 1000)))
    parsed = parse(convert_folder(tmp_path))
    assert parsed.counters == {"lateness": [(1000, 1.5), (5000, 2.5)], "delay": [(1000, 2.0)]}
    assert any("actions.csv: 4 unreadable rows are left out, the first on line 3" in note for note in said)


def test_a_record_that_the_system_does_not_let_us_read_is_said(tmp_path, said):
    (tmp_path / "actions.csv").symlink_to("/proc/self/mem")  # can be opened, and not be read at its beginning
    spool(tmp_path, env=events(*tick(0, 1000)))
    parsed = parse(convert_folder(tmp_path))
    assert parsed.counters == {}
    assert any("cannot be read beyond line 0: Input/output error: no curves" in note for note in said)


@pytest.mark.parametrize("content", ["[1, 2]", '{"config": [], "trace": []}', '"text"', "{", '{"config": null}'])
def test_json_files_of_another_shape_leave_out_what_they_would_have_said(tmp_path, content):
    for name in ("config.json", "summary.json"):
        (tmp_path / name).write_text(content)
    spool(tmp_path, env=events(*tick(0, 1000)))
    assert parse(convert_folder(tmp_path)).root == "rtcore"


def test_a_missing_package_is_named_and_the_events_stay(tmp_path, monkeypatch):
    spool(tmp_path, env=events(*tick(0, 1000)))
    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace.perfetto_trace_pb2", None)
    with pytest.raises(ConfigError, match=r"pip install 'rtcore\[trace\]'"):
        convert_folder(tmp_path)
    assert (tmp_path / "trace-env.events").exists()


def test_a_trace_can_be_written_later(tmp_path, capsys):
    spool(tmp_path, env=events(*tick(0, 1000)))
    perfetto.main([str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / TRACE_FILE)
    with pytest.raises(SystemExit) as ended:
        perfetto.main([str(tmp_path)])
    assert ended.value.code == 2
