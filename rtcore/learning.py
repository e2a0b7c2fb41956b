"""What a real run does about learning beside its processes: what it goes on from, and what of it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtcore.checkpoint import FOLDER, CheckpointFolder, SavedState, load_state, load_weights
from rtcore.checkpointer import Checkpointer, Snapshot
from rtcore.config import RuntimeConfig
from rtcore.report.record import RunRecord
from rtcore.report.summary import LearnerStats
from rtcore.supervisor import Supervisor

#: Newest episodes whose mean return says which checkpoint is the best, and the fewest that say anything.
_MEAN_EPISODES, _FEWEST_EPISODES = 50, 10


class LearningRun:
    """The checkpoints of one run: what goes into them, and when. Of `Runtime`, which supervises in another thread."""

    def __init__(self, config: RuntimeConfig, say: Callable[[str], None]) -> None:
        """Reads what is to go on. ConfigError, before anything is started, if that or the weights cannot be used."""
        self.saved: SavedState | None = None
        self._config = config
        self._say = say
        self._keeper: Checkpointer | None = None
        if config.resume is not None:
            self.saved = load_state(config.resume)
        elif config.policy_checkpoint is not None:
            load_weights(config.policy_checkpoint)

    def begin(self, supervisor: Supervisor, record: RunRecord) -> None:
        """At tick 0. Nothing is kept without an output folder."""
        config = self._config
        if supervisor.learners is None:
            return
        if config.out is None:
            self._say("no checkpoints are kept: there is no output folder (--out)")
            return
        before = self.saved.state if self.saved is not None else {}
        folder = checkpoint_folder(config, config.out, self.saved, self._say)
        self._keeper = Checkpointer(
            folder,
            config.checkpoint_every_s,
            lambda: _snapshot(supervisor, record, before),
            self._say,
            before.get("best_mean_return"),
        )
        self._keeper.start()

    def end(self, supervisor: Supervisor) -> None:
        """Once the run is over: the learners end, and what they reached is kept."""
        supervisor.end_learning()
        if self._keeper is not None:
            self._keeper.stop()

    def stats(self, supervisor: Supervisor) -> LearnerStats | None:
        """How learning goes; None if nobody learns."""
        if supervisor.learners is None:
            return None
        ticks = supervisor.ticks_before + supervisor.shared.env_status["tick"] + 1
        stats, keeper = supervisor.learners.stats(ticks), self._keeper
        if stats is None or keeper is None:
            return stats
        best = math.nan if keeper.best_return is None else keeper.best_return
        return replace(stats, checkpoints=keeper.written, failed_checkpoints=keeper.failed, best_return=best)


def _snapshot(supervisor: Supervisor, record: RunRecord, before: Mapping[str, Any]) -> Snapshot:
    """What there is now. Called in the checkpointer's thread: reads shared memory and what only grows."""
    learners, config = supervisor.learners, supervisor.config
    if learners is None:
        raise RuntimeError("nobody learns")
    updates, network, optimizer = learners.copy()
    state = state_of(
        config,
        supervisor.env_info,
        str(supervisor.policy_info.get("policy", "")),
        updates=updates,
        ticks=int(before.get("ticks", 0)) + supervisor.shared.env_status["tick"] + 1,
        episodes=int(before.get("episodes", 0)) + supervisor.shared.env_counters["episodes"],
    )
    return Snapshot(network, optimizer, state, judged_return(record))


# -- the same for a simulated run ---------------------------------------------------------------------------------


def checkpoint_folder(
    config: RuntimeConfig, out: Path, saved: SavedState | None, say: Callable[[str], None]
) -> CheckpointFolder:
    """Where a run keeps its checkpoints: beside those it goes on from; those of another run are moved away."""
    folder = CheckpointFolder(out / FOLDER, config.keep_checkpoints)
    if saved is None or saved.folder.resolve().parent != folder.folder.resolve():
        aside = folder.set_aside()
        if aside is not None:
            say(f"the checkpoints of an earlier run are now in {aside}")
    return folder


def judged_return(record: RunRecord) -> float | None:
    """Mean return of the newest episodes, by which the best checkpoint is found; None while there are too few."""
    returns = [episode.total_reward for episode in record.episodes[-_MEAN_EPISODES:]]
    return sum(returns) / len(returns) if len(returns) >= _FEWEST_EPISODES else None


def state_of(
    config: RuntimeConfig, env_info: Mapping[str, Any], policy_title: str, *, updates: int, ticks: int, episodes: int
) -> dict[str, Any]:
    """state.json of a checkpoint. `env_info`: the world's `observation` and `action`, as JSON; counts of all runs."""
    return {
        "rtcore": version("rtcore"),
        "updates": updates,
        "ticks": ticks,
        "episodes": episodes,
        "seed": config.seed,
        "algorithm": config.learn,
        "world": {
            "env_id": config.env_id,
            "env_args": config.env_args,
            "observation": env_info["observation"],
            "action": env_info["action"],
        },
        "policy": {
            "policy": config.policy,
            "policy_args": config.policy_args,
            "obs_history": config.obs_history,
            "act_history": config.act_history,
            "title": policy_title,
        },
        "config": config.model_dump(mode="json"),
    }
