"""`rtcore-profile scale` with real, small runs: every number is there, nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rtcore.cli.profile import main
from rtcore.clock import MonotonicClock, cpu_time_of_ns
from rtcore.memory.segments import files_of

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_small_sweeps_give_a_number_for_everything_and_leave_nothing_behind(tmp_path: Path, monkeypatch, capsys):
    ids = []
    from rtcore.processes import supervisor

    real = supervisor.new_run_id
    monkeypatch.setattr(supervisor, "new_run_id", lambda: ids.append(real()) or ids[-1])
    arguments = ["--workers", "1,3", "--rates", "200", "--frames", "12x10", "--fixed-workers", "2", "--seconds", "0.6"]
    with pytest.raises(SystemExit) as end:
        main(["scale", *arguments, "--json", str(tmp_path / "scale.json"), "--plot", str(tmp_path)])
    assert end.value.code == 0
    found = json.loads((tmp_path / "scale.json").read_text())
    named = [(row["sweep"], row["workers"], row["rate_hz"], row["frame_bytes"]) for row in found["rows"]]
    assert named == [
        ("workers", 1, 60, 23040),
        ("workers", 3, 60, 23040),
        ("rate", 2, 200, 23040),
        ("frame", 2, 60, 120),
    ]
    for row in found["rows"]:
        assert row.pop("error") is None
        assert [name for name, value in row.items() if value is None] == []
        assert 0 < row["acted_fraction"] <= 1
        assert row["cpu_env_percent"] > 0
        assert row["cpu_workers_percent"] > 0
        assert row["cpu_supervisor_percent"] > 0
        assert row["total_pss_mb"] > row["env_pss_mb"] > row["last_worker_pss_mb"] > 0
    assert (found["world"], found["policy"]) == ("synthetic", "synthetic")
    assert (tmp_path / "scale-workers.png").stat().st_size > 1000
    assert "Synthetic workers and world" in capsys.readouterr().out
    assert len(ids) == 4
    assert [files_of(run_id) for run_id in ids] == [[], [], [], []]


def test_a_process_that_sleeps_uses_less_cpu_than_one_that_works():
    programs = ("import time; print(flush=True); time.sleep(60)", "print(flush=True)\nwhile True: pass")
    processes = [subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) for text in programs]
    clock = MonotonicClock()
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        before_ns = [cpu_time_of_ns(process.pid) for process in processes]
        give_up_ns = clock.now_ns() + 60_000_000_000
        while cpu_time_of_ns(processes[1].pid) - before_ns[1] < 200_000_000 and clock.now_ns() < give_up_ns:
            clock.sleep_until_ns(clock.now_ns() + 20_000_000)
        slept_ns, worked_ns = (cpu_time_of_ns(p.pid) - b for p, b in zip(processes, before_ns, strict=True))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert worked_ns >= 200_000_000
    assert 0 <= slept_ns < worked_ns / 4
    assert all(cpu_time_of_ns(process.pid) == 0 for process in processes), "they are gone"
