"""`rtcore-profile` as a user calls it, in another process; nothing of it may be left in /dev/shm."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ipc import why_missing
from rtcore.profile import ipc, pingpong, tick
from rtcore.profile.commands import COMMANDS
from tests.support.drills import wait_for

# Eleven transports, each with processes of its own: half a minute on a quiet machine.
pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(660)]

PROFILE = [sys.executable, "-W", "error", "-m", "rtcore.cli.profile"]
#: No display, as over SSH.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"COLUMNS": "120"}
QUICK = ("--frames", "84x84", "--readers", "1", "--rounds", "25", "--gap-us", "500", "--step-us", "50")


def start(*words, **more):
    settings = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen([*PROFILE, *map(str, words)], **settings)


def run(*words, **more):
    """Exit code, output and errors of a program that left nothing behind."""
    process = start(*words, **more)
    try:
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert left_behind(process.pid) == []
    return process.returncode, output, errors


def left_behind(pid):
    # Run ids begin with the pid of the program, so that other runs on this machine are not mistaken for this one.
    return [path.name for path in Path("/dev/shm").glob(f"*rtcore-{pid}-*")]


def measurable():
    return [name for name in ipc.TRANSPORTS if name in ipc.RTCORE or why_missing(name) is None]


def test_every_transport_that_is_installed_carries_frames_in_one_run(tmp_path):
    found = tmp_path / "new.json"
    names = ",".join(ipc.TRANSPORTS)
    code, output, errors = run("ipc", *QUICK, "--transports", names, "--json", found, "--plot", tmp_path / "pictures")
    assert code == 0, errors
    result = json.loads(found.read_text())
    rows = {row["transport"]: row for row in result["rows"]}
    assert result["profile"] == "ipc"
    assert list(rows) == measurable()
    for name, row in rows.items():
        assert (row["frame_bytes"], row["readers"]) == (7056, 1)
        assert row["samples"] + row["missed"] >= 24, name
        assert 0 < row["p50_us"] <= row["p99_us"], name
        assert row["publish_p50_us"] > 0, name
    assert rows["rtcore-hybrid"]["slot_p50_us"] > 0
    assert rows["rtcore-hybrid"]["book_p50_us"] > 0
    assert rows["pipe"]["book_p50_us"] is None
    assert rows["rtcore-hybrid"]["visible_p50_us"] <= rows["rtcore-hybrid"]["publish_p99_us"]
    assert {"kernel", "usable_cpus", "load_before", "steal_percent"} <= result["machine"].keys()
    assert result["machine"]["kernel"] in output, "the host's conditions are printed"
    assert (tmp_path / "pictures" / "ipc-frames.png").read_bytes().startswith(b"\x89PNG")


def test_a_frame_is_bounced_through_each_transport_that_can_and_comes_back_as_it_was(tmp_path):
    found = tmp_path / "new.json"
    words = ("--pattern", "pingpong", "--frames", "84x84,144x160x3", "--rounds", "60", "--json", found)
    code, output, errors = run("ipc", *words, "--plot", tmp_path)
    assert code == 0, errors
    result = json.loads(found.read_text())
    names = [name for name in pingpong.BOUNCED if name in measurable()]
    assert [(row["transport"], row["frame_bytes"]) for row in result["rows"]] == [
        (name, num_bytes) for num_bytes in (7056, 69120) for name in names
    ]
    for row in result["rows"]:
        assert row["samples"] == 60
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"]
    assert "half a round trip" in output
    assert (tmp_path / "ipc-pingpong.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("load", [(), ("--load",)])
def test_a_machine_is_qualified_by_real_runs_beside_a_timer_with_a_page_of_all_of_it(tmp_path, load):
    found, page = tmp_path / "new.json", tmp_path / "page.html"
    words = ("--minutes", "0.1", "--rates", "60,250", "--page", page, "--json", found, *load)
    code, output, errors = run("qualify", *words)
    assert code == 0, errors
    result = json.loads(found.read_text())
    whats = ("tick lateness", "frame to worker", "action to dispatch", result["rows"][3]["what"])
    assert whats[3] == ("cyclictest" if tick.find_cyclictest() else "timer thread")
    assert [(row["rate_hz"], row["what"]) for row in result["rows"]] == [(hz, w) for hz in (60, 250) for w in whats]
    for row, shape in zip(result["rows"], result["histograms"], strict=True):
        assert row["load"] == ("stated" if load else "none")
        assert row["samples"] == sum(shape["counts"])
        assert row["p50_us"] is None or row["p50_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"]
    assert ("fsync" in result["load"]) == bool(load)
    assert result["doctor"]["checks"]
    text = page.read_text()
    assert "data:image/png;base64" in text
    assert 'src="http' not in text
    for fact in (result["load"][:20], "rtcore-doctor", "For docs/machines.md", result["machine"]["kernel"]):
        assert fact in text
    assert output.count("| 250 |") == 1


def test_several_readers_all_get_every_frame(tmp_path):
    found = tmp_path / "new.json"
    words = [*QUICK, "--readers", "3", "--transports", "rtcore-block,pipe,zmq,iceoryx2,faster-fifo,c-futex"]
    code, _, errors = run("ipc", *words, "--gap-us", "4000", "--json", found)
    assert code == 0, errors
    for row in json.loads(found.read_text())["rows"]:
        # Per reader 25 frames, of which the first is not counted.
        assert row["samples"] + row["missed"] == 3 * 24, row["transport"]


def test_worse_than_the_baseline_is_exit_code_3_and_not_worse_is_0(tmp_path):
    old = tmp_path / "old.json"
    words = ("ipc", *QUICK, "--transports", "rtcore-block")
    assert run(*words, "--json", old)[0] == 0
    result = json.loads(old.read_text())
    # So far apart that a machine that stands still for seconds is in between.
    for factor, expected, said in ((1e-3, 3, "worse than the baseline in 1 of 1"), (1e9, 0, "not worse")):
        changed = json.loads(json.dumps(result))
        changed["rows"][0]["p99_us"] *= factor
        old.write_text(json.dumps(changed))
        code, output, errors = run(*words, "--baseline", old, "--fail-if", "ipc.p99>+10%")
        assert (code, errors) == (expected, "")
        assert said in output


def test_a_case_that_has_no_number_any_more_is_worse_and_shown(tmp_path):
    old = tmp_path / "old.json"
    words = ("ipc", *QUICK, "--transports", "rtcore-block")
    assert run(*words, "--json", old)[0] == 0
    result = json.loads(old.read_text())
    result["rows"].append(result["rows"][0] | {"transport": "rtcore-spin"})
    old.write_text(json.dumps(result))
    code, output, errors = run(*words, "--baseline", old, "--fail-if", "ipc.p99>+100000000000%")
    assert (code, errors) == (3, "")
    assert "worse than the baseline in 1 of 2" in output
    gone = next(line for line in output.splitlines() if "rtcore-spin" in line and "p99_us" in line)
    assert " none " in gone


def test_a_baseline_without_a_condition_is_shown_beside_the_new_numbers(tmp_path):
    old = tmp_path / "old.json"
    words = ("ipc", *QUICK, "--transports", "rtcore-block")
    assert run(*words, "--json", old)[0] == 0
    code, output, errors = run(*words, "--baseline", old)
    assert (code, errors) == (0, "")
    assert "p50_us" in output
    assert "shown only" in output
    old.write_text(json.dumps({"profile": "ipc", "rows": []}))
    code, output, errors = run(*words, "--baseline", old)
    assert (code, errors) == (0, "")
    assert "nothing is compared" in output


def test_a_baseline_with_odd_rows_is_refused_before_anything_is_measured(tmp_path):
    old = tmp_path / "old.json"
    old.write_text('{"profile": "ipc", "rows": [1]}')
    code, output, errors = run("ipc", *QUICK, "--baseline", old)
    assert (code, output) == (2, "")
    assert "a row that is 1" in " ".join(errors.split())


def test_a_condition_on_a_metric_that_does_not_exist_is_refused_before_anything_is_measured(tmp_path):
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"profile": "ipc", "rows": [{"transport": "pipe", "p99_us": 1.0}]}))
    code, output, errors = run("ipc", *QUICK, "--baseline", old, "--fail-if", "ipc.p95>+10%")
    assert (code, output) == (2, "")
    assert "no field 'p95'; there are p99_us" in " ".join(errors.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "rtcore-profile: error"),
        (("ipc", "--no-such-option"), "unknown option for ipc: --no-such-option"),
        (("ipc", "--frames", "big"), "expected height x width"),
        (("ipc", "--fail-if", "ipc.p99>+10%"), "--fail-if needs something to compare with"),
        (("ipc", "--baseline", "/nowhere/old.json"), "No such file"),
        (("ipc", "--json", "/nowhere/new.json"), "there is no folder /nowhere"),
        (("ipc", "--json", "/tmp"), "--json /tmp: is a folder"),
        (("tick", "--seconds", "inf"), "expected 1 to 86400"),
        (("ipc", "--plot", "/proc/nowhere"), "expected a folder to write into"),
        (("tick", "--rate", "often"), "expected Hz as a number or a fraction"),
    ],
)
def test_a_wrong_setting_is_exit_code_2_with_what_to_do(words, said):
    code, _, errors = run(*words)
    assert code == 2
    assert said in " ".join(errors.split())


def test_numbers_on_standard_output_are_nothing_but_json():
    code, output, errors = run("ipc", *QUICK, "--transports", "rtcore-block", "--json", "-")
    assert code == 0
    assert json.loads(output)["rows"][0]["transport"] == "rtcore-block"
    assert "rtcore-block" in errors, "people read the other stream"


def test_ctrl_c_in_the_middle_leaves_nothing_behind():
    with start("ipc", "--rounds", "5000", "--readers", "1") as process:
        wait_for(lambda: bool(left_behind(process.pid)), "something to be left behind")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=150)
    assert process.returncode == 130
    assert errors == "rtcore-profile: stopped by SIGINT; everything is cleaned up\n"
    assert left_behind(process.pid) == []


@pytest.mark.parametrize("words", [("--help",), *((name, "--help") for name in COMMANDS)])
def test_the_help_teaches_with_examples(words):
    code, output, _ = run(*words)
    assert code == 0
    assert "examples:" in output
    assert "--fail-if" in output


def test_ticks_are_measured_idle_and_beside_busy_processes(tmp_path):
    found = tmp_path / "new.json"
    words = ("--seconds", "1", "--rate", "100", "--load", "1", "--policy", "other", "--no-cyclictest")
    code, output, errors = run("tick", *words, "--json", found, "--plot", tmp_path)
    assert code == 0, errors
    assert "measuring: idle, normal scheduling, 1 s\nmeasuring: 1 busy process, normal scheduling" in output
    rows = json.loads(found.read_text())["rows"]
    assert [(row["source"], row["policy"], row["load"], row["ticks"]) for row in rows] == [
        ("tick-clock", "other", 0, 100),
        ("tick-clock", "other", 1, 100),
    ]
    assert all(row["skipped_ticks"] >= 0 for row in rows)
    assert all(0 <= row["p50_us"] <= row["p99_us"] <= row["max_us"] for row in rows)
    assert (tmp_path / "tick-lateness.png").exists()


def test_what_is_not_installed_is_said_and_left_out(tmp_path):
    bare = ENVIRONMENT | {"PATH": str(tmp_path)}
    bare.pop("CC", None)
    words = ("tick", "--seconds", "1", "--load", "0", "--policy", "other")
    code, output, errors = run(*words, env=bare)
    assert code == 0, errors
    assert "cyclictest is not installed (apt install rt-tests): left out" in output
    code, output, errors = run("ipc", *QUICK, "--transports", "rtcore-block,c-spin", env=bare)
    assert code == 0, errors
    assert "no C compiler found" in output
    assert "rtcore-block" in output


def test_what_the_kernel_refuses_is_said_with_the_reason():
    # Without the capability and with no limit of its own a process may not be realtime, not even as root.
    limited = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "prlimit", "--rtprio=0:0"]
    if subprocess.run([*limited, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs setpriv and prlimit, and the right to drop a capability")
    words = [*limited, *PROFILE, "tick", "--seconds", "1", "--load", "0", "--policy", "fifo", "--no-cyclictest"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "SCHED_FIFO refused: Operation not permitted" in " ".join(done.stdout.split())


@pytest.mark.skipif(tick.shutil.which("cyclictest") is None, reason="cyclictest (rt-tests) is not installed")
def test_cyclictest_takes_turns_with_the_tick_clock(tmp_path):
    found = tmp_path / "new.json"
    words = ("--seconds", "1", "--rate", "200", "--load", "0", "--policy", "other")
    code, _, errors = run("tick", *words, "--json", found)
    assert code == 0, errors
    rows = {row["source"]: row for row in json.loads(found.read_text())["rows"]}
    assert rows["cyclictest"]["ticks"] > 100
    assert rows["tick-clock"]["p99_to_cyclictest_p99"] > 0
