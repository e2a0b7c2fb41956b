"""A run whose ticks are the cycles of its world's device: what it counts and keeps, how it ends if that is silent."""

from __future__ import annotations

import pytest

import rtcore
from rtcore.cli.run import main
from rtcore.errors import ConfigError, EnvironmentHung
from rtcore.recording.reader import Recording
from rtcore.results.folder import read_run
from tests.support.drills import wait_for
from tests.support.told_runs import text_of

pytestmark = pytest.mark.process

DEVICE = {"env_id": "rtcore/SyntheticDevice-v0", "policy": "random", "workers": 1, "clock": "world"}


def test_ticks_are_the_devices_cycles_those_it_loses_are_skipped_and_all_of_it_is_kept(tmp_path, capsys):
    settings = {"tells": "stamps", "drift_ppm": 100, "lose_every": 20}
    with rtcore.Runtime(**DEVICE, env_args=settings, duration=600, out=tmp_path, record=True, trace=True) as runtime:
        wait_for(lambda: runtime.stats().counters["lost_cycles"] > 3, "lost cycles")
        with runtime.paused():
            pass
        runtime.stop()
    summary = runtime.summary()
    clock, ticks = summary["world_clock"], summary["ticks"]
    assert 3 < clock["lost_cycles"] <= ticks["skipped"]
    assert clock["cycles"] == ticks["count"]
    assert clock["nominal_hz"] == 60
    assert clock["phase_error_us"]["max"] > 0
    ages = summary["part_ages"]
    assert (ages["camera"]["nominal_hz"], ages["place"]["nominal_hz"]) == (30, 60)
    assert ages["camera"]["age_ms"]["max"] > ages["place"]["age_ms"]["p50"] >= 0
    with Recording(tmp_path) as recording:
        behind_ns = recording.column("publish_ns") - recording.column("stamp_ns/camera")
    assert behind_ns.min() >= 0
    assert ages["camera"]["age_ms"]["max"] == pytest.approx(behind_ns.max() / 1e6)
    assert summary["clock"] == "world"
    assert summary["invariants"]["broken"] == 0
    assert any("device's cycles" in note for note in summary["environment"]["notes"])
    run = read_run(tmp_path)
    skipped = next(row.tick - 1 for row in run.ticks if row.skipped_ticks)
    assert f"Tick {skipped}: skipped" in text_of(run, skipped)
    with pytest.raises(SystemExit) as end:
        main(["--replay", str(tmp_path)])
    assert end.value.code == 0
    assert "identical" in capsys.readouterr().out


def test_a_device_that_falls_silent_ends_the_run_with_an_error_that_names_it():
    stops = {"stops_after_s": 4}  # before tick 0, or after it: it is the same error
    with (
        pytest.raises(EnvironmentHung, match=r"SyntheticDeviceEnv.wait_cycle\(\) gave no cycle for 1.5 s"),
        rtcore.Runtime(**DEVICE, env_args=stops, duration=600, env_timeout_s=1.5) as runtime,
    ):
        runtime.wait()


def test_a_world_without_a_clock_is_refused_before_anything_else_starts():
    with pytest.raises(ConfigError, match="clock=virtual: a RealtimeEnv is in real time"):
        rtcore.RealtimeEnv("CartPole-v1", clock="virtual")
    with pytest.raises(ConfigError, match=r"CartPoleEnv has neither wait_cycle\(timeout_s\)"):
        rtcore.RealtimeEnv("CartPole-v1", clock="world").reset()
