"""The recording as a LeRobot data set: its tables, and by loaders of others."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.recording.lerobot import write_lerobot
from rtcore.recording.minari import episodes_of
from rtcore.recording.reader import Recording
from rtcore.spaces.image import image_in
from rtcore.virtual.simulate import Simulation

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="the extra record is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="the extra lerobot is not installed"),
]


def recorded(folder: Path, **fields: Any) -> Recording:
    settings = {"policy": "random", "clock": "virtual", "workers": 1, "record": True, "out": folder} | fields
    Simulation(make_config(**settings)).run().close()
    return Recording(folder)


def tables(folder: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("data/*/*.parquet")):
        for name, values in parquet.read_table(path).to_pydict().items():
            found.setdefault(name, []).extend(values)
    return found


def test_a_row_is_what_was_seen_before_a_step_its_action_and_what_it_paid(tmp_path: Path):
    from pyarrow import parquet

    with recorded(tmp_path / "run", env_id="CartPole-v1", fps=50, ticks=120) as recording:
        count = write_lerobot(recording, tmp_path / "set")
        episodes, _ = episodes_of(recording)
        rows = tables(tmp_path / "set")
        info = json.loads((tmp_path / "set/meta/info.json").read_text())
        assert count == len(episodes) == info["total_episodes"] > 2
        assert set(rows) == set(info["features"])
        frames, actions, rewards = (recording.column(name) for name in ("frame", "action", "reward"))
        seen, done, paid, ends = [], [], [], []
        for episode in episodes:
            steps = [row for first, last in episode.steps for row in range(first, last)]
            seen += [frames[row] for row in [episode.reset, *steps[:-1]]]
            done += [int(actions[row].ravel()[0]) for row in steps]
            paid += [float(rewards[row]) for row in steps]
            ends.append(len(done))
    np.testing.assert_array_equal(np.array(rows["observation.state"], np.float32), np.array(seen))
    assert rows["action"] == done
    assert rows["next.reward"] == paid
    assert [at + 1 for at, over in enumerate(rows["next.done"]) if over] == ends[: sum(rows["next.done"])]
    assert rows["index"] == list(range(info["total_frames"]))
    kept = parquet.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert kept["dataset_to_index"] == ends
    assert kept["dataset_from_index"] == [0, *ends[:-1]]
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    assert stats["next.reward"]["mean"] == [pytest.approx(np.mean(paid))]
    assert info["fps"] == 50
    tasks = pytest.importorskip("pandas").read_parquet(tmp_path / "set/meta/tasks.parquet")
    assert (tasks.index.name, tasks.index.tolist(), tasks["task_index"].tolist()) == ("task", ["CartPole-v1"], [0])


def test_images_are_there_without_loss_and_a_folder_that_is_there_is_left_alone(tmp_path: Path):
    with recorded(tmp_path / "run", env_id="rtcore/Blocks-v0", ticks=20) as recording:
        write_lerobot(recording, tmp_path / "set")
        image_of = image_in(recording.observation)
        (episode, *_), _ = episodes_of(recording)
        first = image_of(recording.column("frame", episode.reset, episode.reset + 1)[0])
        kept = tables(tmp_path / "set")["observation.images.world"][0]["bytes"]
        shown = np.asarray(Pillow.open(io.BytesIO(kept)))
        np.testing.assert_array_equal(shown, np.broadcast_to(first, shown.shape))
        with pytest.raises(ConfigError, match="is there already"):
            write_lerobot(recording, tmp_path / "set")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="the extra rerun is not installed")
def test_the_reader_of_rerun_takes_it_for_a_data_set_of_version_3(tmp_path: Path):
    from rerun.experimental import LeRobotReader

    with recorded(tmp_path / "run", env_id="rtcore/Blocks-v0", ticks=20) as recording:
        count = write_lerobot(recording, tmp_path / "set")
    reader = LeRobotReader(tmp_path / "set")
    assert reader.version == "v3"
    assert reader.episodes() == list(range(count))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lerobot") is None, reason="lerobot is not installed: it pins another torch"
)
def test_lerobot_loads_it(tmp_path: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    with recorded(tmp_path / "run", env_id="CartPole-v1", fps=50, ticks=120) as recording:
        write_lerobot(recording, tmp_path / "set")
    data = LeRobotDataset("rtcore/run", root=tmp_path / "set")
    rows = tables(tmp_path / "set")
    assert len(data) == len(rows["index"])
    assert data[3]["action"].item() == rows["action"][3]
    np.testing.assert_allclose(data[3]["observation.state"].numpy(), rows["observation.state"][3])
