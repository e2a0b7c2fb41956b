"""A run as a file for Rerun: read back with Rerun's own reader."""

from __future__ import annotations

import importlib.util
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import rtcore
from rtcore.errors import ConfigError
from rtcore.recording.reader import Recording
from rtcore.report.rerun import require_rerun, write_rrd
from rtcore.virtual.simulate import Simulation

pytestmark = [
    pytest.mark.unit,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="the extra rerun is not installed"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a world with images, recorded; workers that take 60 ms."""
    pytest.importorskip("h5py")
    settings = {"env_id": "rtcore/Blocks-v0", "policy": "synthetic", "policy_args": {"latency_ms": 60}, "workers": 4}
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = rtcore.RuntimeConfig(**settings, clock="virtual", ticks=40, out=folder, record=True)
    Simulation(config).run().close()
    return rtcore.load_run(folder)


def values_of(path: Path, entity: str, component: str) -> dict[int, Any]:
    """What a file holds for an entity, by tick; read with Rerun's own reader."""
    from rerun.chunk import RrdReader

    found: dict[int, Any] = {}
    for chunk in RrdReader(path).stream().to_chunks():
        if chunk.entity_path == entity:
            rows = chunk.to_record_batch().to_pydict()
            (name,) = [name for name in rows if component in name]
            found |= dict(zip(rows["tick"], rows[name], strict=True))
    return found


def test_the_file_holds_frames_actions_delays_and_a_lane_for_each_worker(run: Any, tmp_path: Path):
    path = write_rrd(run, tmp_path / "run.rrd")
    assert [file.name for file in tmp_path.iterdir()] == ["run.rrd"]
    ticks = run.to_numpy("ticks")
    acted = ticks[ticks["kind"] == "acted"]
    assert len(acted) > 20
    for entity, column in (("delay_ticks", "delay_ticks"), ("worker", "worker")):
        told = values_of(path, f"/action/{entity}", "scalars")
        assert told == {tick: [value] for tick, value in zip(acted["tick"], acted[column], strict=True)}
    applied = values_of(path, "/action/applied", "scalars")
    assert applied == {row["tick"]: [float(row["applied_action"])] for row in ticks if row["applied_action"]}
    images = values_of(path, "/observation/image", "blob")
    with Recording(run.path) as recording:
        for tick, frame in zip(recording.column("tick").tolist(), recording.column("frame"), strict=True):
            seen = np.asarray(Pillow.open(io.BytesIO(bytes(images[tick][0]))))
            np.testing.assert_array_equal(seen, frame.reshape(seen.shape))
    for lane in ("w00", "w01", "w02", "w03"):
        states = values_of(path, f"/lanes/{lane}", "state")
        assert ["on_time"] in states.values()


def test_a_run_without_ticks_is_refused_and_leaves_no_file(run: Any, tmp_path: Path):
    with pytest.raises(ConfigError, match="nothing to show"):
        write_rrd(replace(run, ticks=[]), tmp_path / "run.rrd")
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match=r"pip install 'rtcore\[rerun\]'"):
        require_rerun()
