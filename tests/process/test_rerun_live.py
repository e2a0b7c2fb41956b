"""A run that goes on, told to Rerun by an onlooker: every tick and every inference, once."""

from __future__ import annotations

import importlib.util
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

import rtcore
from rtcore.watch.attached import AttachedRun
from tests.support.drills import wait_for

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="the extra rerun is not installed"),
]


def rows_in(path: Path) -> Counter[str]:
    """By entity; read with Rerun's own reader."""
    from rerun.chunk import RrdReader

    found: Counter[str] = Counter()
    for chunk in RrdReader(path).stream().to_chunks():
        found[chunk.entity_path] += chunk.num_rows
    return found


def test_every_tick_of_a_run_that_goes_on_is_told_once(tmp_path: Path) -> None:
    slow = {"policy": "synthetic", "policy_args": {"latency_ms": 60}, "workers": 3, "ring_slots": 4096}
    with rtcore.Runtime(env_id="rtcore/Blocks-v0", ticks=200, **slow) as runtime:
        with AttachedRun.attach(runtime.run_id) as run:

            def has_begun() -> bool:
                run.refresh()
                return run.has_begun

            wait_for(has_begun, "tick 0")
            with closing(run.tell_rerun(str(tmp_path / "run.rrd"))) as told:
                over = False
                while not over:
                    over = runtime.wait(0.2) or run.ending() is not None
                    run.refresh()
                    assert run.record is not None
                    told.update(run.record)
        runtime.wait()
    summary, rows = runtime.summary(), rows_in(tmp_path / "run.rrd")
    assert rows["/tick/kind"] == rows["/observation/image"] == summary["ticks"]["count"]
    assert rows["/action/delay_ticks"] == summary["ticks"]["kinds"]["acted"]
    assert {"/lanes/w00", "/lanes/w01", "/lanes/w02"} <= set(rows)
