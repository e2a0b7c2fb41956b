"""Qualification: what is refused, and what its page and its lines say of a made-up machine."""

from __future__ import annotations

import io
from argparse import Namespace

import pytest
from rich.console import Console

from rtcore.errors import ConfigError, RtcoreError
from rtcore.host.load import full_load, load_text
from rtcore.memory.counters import Histogram
from rtcore.profile import ipc, qualify
from rtcore.profile.results import Result

pytestmark = pytest.mark.unit

MACHINE = {
    "host": "box",
    "kernel": "6.1",
    "preemption": "PREEMPT",
    "cpu_model": "a CPU <made up>",
    "num_cpus": 2,
    "usable_cpus": 2,
    "python": "3.11",
    "load_before": 0.1,
    "load_after": 0.2,
    "steal_percent": 0.0,
    "busy_percent": 1.0,
    "duration_s": 9.0,
}


def made_up():
    late = Histogram()
    for late_ns in (*[2_000] * 998, 30_000, 250_000):
        late.add(late_ns)
    rows, shapes = [], []
    for what in ("tick lateness", "frame to worker", "action to dispatch", "timer thread"):
        shape = (late if what != "frame to worker" else Histogram()).snapshot()
        rows.append({"rate_hz": 250.0, "load": "none", "what": what} | qualify._numbers(shape))
        shapes.append({"rate_hz": 250.0, "what": what} | qualify._counts(shape))
    rows[0] |= {"acted_fraction": 0.999, "skipped_ticks": 1}
    check = {"status": "warn", "title": "governor", "found": "powersave", "fix": "cpupower"}
    extra = {"load": "none", "granted": {"SCHED_FIFO": "granted"}, "cyclictest": None, "minutes": 1.0}
    return Result("qualify", rows, (), {**extra, "doctor": {"checks": [check]}, "histograms": shapes})


def test_the_worst_sample_is_the_maximum_and_has_its_place_in_table_line_and_histogram():
    result = made_up()
    assert (result.rows[0]["p999_us"], result.rows[0]["max_us"]) == (pytest.approx(30, rel=0.01), 250)
    line, *none = qualify.lines_for_machines(result)
    assert not none
    assert (
        line == "| 250 | none | 1,000 | 0.99900 | 1 | 30 / **250** | - | 30 / **250** | 30 / **250** (timer thread) |"
    )
    shape = result.extra["histograms"][0]
    assert (shape["values_us"][-1], sum(shape["counts"])) == (250, 1000)


def test_the_page_is_one_file_with_everything_in_it(tmp_path):
    path = tmp_path / "page.html"
    qualify.write_page(path, made_up(), MACHINE)
    text = path.read_text()
    for fact in ("a CPU &lt;made up&gt;", "timer thread of rtcore", "SCHED_FIFO: granted", "powersave", "0.99900"):
        assert fact in text
    assert "data:image/png;base64," in text
    with pytest.raises(RtcoreError, match="the page is not kept"):
        qualify.write_page(tmp_path / "no" / "page.html", made_up(), MACHINE)


@pytest.mark.parametrize(
    "changed", [{"rates": "60,fast"}, {"rates": ""}, {"rates": "0"}, {"minutes": 0.0}, {"minutes": 1e9}]
)
def test_what_cannot_be_measured_is_refused(changed):
    options = Namespace(**({"rates": "60", "minutes": 1.0, "load": False, "no_doctor": True} | changed))
    with pytest.raises(ConfigError):
        qualify.run(options, Console(file=io.StringIO()))


def test_the_load_says_exactly_what_it_does():
    text = load_text(full_load())
    for words in (
        "to compute and touch 2 MB",
        "1 to copy 64 MB back and forth",
        "1 to write files of 4 MB with fsync in ",
    ):
        assert words in text


@pytest.mark.parametrize(
    "changed", [{"readers": "2"}, {"full": True}, {"gap_us": 5}, {"transports": "queue"}, {"transports": "c-spin,zmq"}]
)
def test_a_ping_pong_refuses_what_it_has_no_use_for(changed):
    given = {"pattern": "pingpong", "frames": None, "readers": None, "transports": None, "rounds": None}
    options = Namespace(**(given | {"full": False, "gap_us": None, "no_pin": False} | changed))
    with pytest.raises(ConfigError, match="--pattern pingpong has no --"):
        ipc.run(options, Console(file=io.StringIO()))
