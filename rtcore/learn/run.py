"""What a real run does about learning beside its processes: what it goes on from, and what of it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtcore.config import RuntimeConfig
from rtcore.learn.checkpoint import FOLDER, CheckpointFolder, SavedState, load_state, load_weights, unchecked
from rtcore.learn.checkpointer import Checkpointer, Snapshot
from rtcore.report.record import RunRecord
from rtcore.report.summary import LearnerStats
from rtcore.supervisor import Supervisor

#: Newest episodes whose mean return says which checkpoint is the best, and the fewest that say anything.
_MEAN_EPISODES, _FEWEST_EPISODES = 50, 10
#: Settings that a resumed run takes from its command line like any other, and that make it learn something else.
_LEARNED_WITH = (
    *("env_id", "env_args", "fps", "seed", "policy_args", "mode", "learners"),
    *("learning_rate", "gamma", "batch_size", "n_step", "double_dqn", "target_every", "max_grad_norm"),
    *("updates_per_tick", "epsilon_start", "epsilon_end", "epsilon_ticks", "explore_ticks"),
)


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
            say_what_changed(config, self.saved, say)
        elif config.policy_checkpoint is not None:
            load_weights(config.policy_checkpoint)
        say_what_is_unchecked(config, say)

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
            lambda: _snapshot(config, supervisor, record, before),
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


def _snapshot(config: RuntimeConfig, supervisor: Supervisor, record: RunRecord, before: Mapping[str, Any]) -> Snapshot:
    """What there is now. Called in the checkpointer's thread: reads shared memory and what only grows."""
    learners = supervisor.learners
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


def say_what_is_unchecked(config: RuntimeConfig, say: Callable[[str], None]) -> None:
    """Weights without checksums are used, with a word."""
    path = config.resume or config.policy_checkpoint
    if path is not None and (note := unchecked(path, "resume" if config.resume else "policy-checkpoint")):
        say(note)


def say_what_changed(config: RuntimeConfig, saved: SavedState, say: Callable[[str], None]) -> None:
    """Resuming restores what was learned, not the settings: say which are others now."""
    was, now = saved.state.get("config") or {}, config.to_jsonable()
    others = [name for name in _LEARNED_WITH if name in was and was[name] != now[name]]
    changed = [f"{name} {now[name]} (was {was[name]})" for name in others]
    if changed:
        say(f"resumed with other settings than {saved.folder} was learned with: {', '.join(changed)}")


# -- the same for a simulated run ---------------------------------------------------------------------------------


def checkpoint_folder(
    config: RuntimeConfig, out: Path, saved: SavedState | None, say: Callable[[str], None]
) -> CheckpointFolder:
    """Where a run keeps its checkpoints: beside those it goes on from; those of another run are moved away."""
    folder = CheckpointFolder(out / FOLDER, config.keep_checkpoints)
    if saved is None or not saved.is_of(out):
        aside = folder.set_aside()
        if aside is not None:
            say(f"the checkpoints of an earlier run are now in {aside}")
    return folder


def judged_return(record: RunRecord) -> float | None:
    """Mean return of the newest episodes, by which the best checkpoint is found; None while there are too few."""
    returns = [episode.total_reward for episode in record.episodes.newest(_MEAN_EPISODES)]
    return sum(returns) / len(returns) if len(returns) >= _FEWEST_EPISODES else None


def state_of(
    config: RuntimeConfig, env_info: Mapping[str, Any], policy_title: str, *, updates: int, ticks: int, episodes: int
) -> dict[str, Any]:
    """state.json of a checkpoint. `env_info`: the world's `observation` and `action`, as JSON; counts of all runs."""
    plain = config.to_jsonable()
    return {
        "rtcore": version("rtcore"),
        "updates": updates,
        "ticks": ticks,
        "episodes": episodes,
        "seed": config.seed,
        "algorithm": config.learn,
        "world": {
            "env_id": config.env_id,
            "env_args": plain["env_args"],
            "observation": env_info["observation"],
            "action": env_info["action"],
        },
        "policy": {
            "policy": config.policy,
            "policy_args": plain["policy_args"],
            "obs_history": config.obs_history,
            "obs_every": config.obs_every,
            "act_history": config.act_history,
            "chunk": config.chunk,
            "chunk_rest": config.chunk_rest,
            "title": policy_title,
        },
        "config": plain,
    }
