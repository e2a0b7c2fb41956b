"""Short recorded runs on the virtual clock, as quick to make as they are eventful."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.files.outside import write_sums
from rtcore.loop.process import build_world
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, TICKS_FILE
from rtcore.virtual.replay import Report, make_world, replay
from rtcore.virtual.simulate import Simulation
from tests.support.drills import wait_for

SETTINGS: dict[str, Any] = {
    "clock": "virtual",
    "env_id": "tests.support.virtual_worlds:Signs",
    "env_args": {"episode_ticks": 17},
    "policy": "random",
    "latency": "constant:25",
    "workers": 3,
    "ticks": 120,
}


def recorded(out: Path, *, latency: Any = None, changes: Any = (), on_tick: Any = None, **fields: Any) -> Simulation:
    """A run that is over and recorded in `out`. `on_tick(simulation, tick)` is called after each tick."""
    config = make_config(**(SETTINGS | {"record": True, "out": out} | fields))
    simulation = Simulation(config, latency=latency, changes=changes)
    try:
        simulation.run(None if on_tick is None else lambda tick: on_tick(simulation, tick))
    finally:
        simulation.close()
    return simulation


def wait_for_frames(out: Path, count: int) -> None:
    """Until so many are in the file, which is read while it is written."""

    def there() -> bool:
        try:
            with Recording(out) as recording:
                return recording.num_ticks >= count
        except ConfigError:
            return False

    wait_for(there, f"{count} recorded frames")


def replayed(path: Path, **options: Any) -> Report:
    """The recording in `path` again, its world made as the simulation makes it."""
    with Recording(path) as recording:
        config = RuntimeConfig.from_jsonable(recording.config)
        world = build_world(config.world, config.world.seed)
        return replay(recording, config, world, **options)


def played_again(out: Path) -> Report:
    """The recording of a run of real processes again, its world made as `rtcore-run --replay` makes it."""
    with Recording(out) as recording:
        config = make_config(**recording.config)
        world = make_world(recording, config)
        try:
            return replay(recording, config, world)
        finally:
            world.close()


@contextmanager
def tampering(out: Path) -> Iterator[Any]:
    """The open h5py file of a run's recording, to be changed on purpose: with a checksum that agrees."""
    path = out / FOLDER / TICKS_FILE
    with h5py.File(path, "r+") as file:
        yield file
    write_sums(path.parent, [path.name])
