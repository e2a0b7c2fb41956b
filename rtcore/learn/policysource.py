"""Weights know what network they are of: what a checkpoint says of its policy need not be said again."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from rtcore.config import RuntimeConfig
from rtcore.learn.checkpoint import find_state, read_state

#: The policy that comes with the package, and where its weights are.
TRAINED = "trained"
_FIELDS = ("policy", "policy_args", "obs_history", "act_history")


def trained_folder() -> Path:
    """The checkpoint of the policy `trained`."""
    return Path(str(files("rtcore_workers.policies") / "trained_blocks"))


def resolve_policy(config: RuntimeConfig) -> RuntimeConfig:
    """The config with policy, arguments and histories as the weights' checkpoint says, where they were not given.

    For --policy trained, --policy-checkpoint and --resume. Single arguments that were given win over the
    checkpoint's. ConfigError if a checkpoint is there but cannot be read.
    """
    given = config.model_fields_set
    if config.policy == TRAINED:
        saved = read_state(trained_folder(), "policy")["policy"]
        found = {name: saved[name] for name in ("obs_history", "act_history") if name not in given}
        return config.model_copy(update=found)
    path = config.resume or config.policy_checkpoint
    state = find_state(path, "resume" if config.resume else "policy-checkpoint") if path is not None else None
    if state is None:
        return config
    saved = state["policy"]
    if "policy" in given and config.policy != saved["policy"]:
        return config
    update: dict[str, Any] = {name: saved[name] for name in _FIELDS if name in saved and name not in given}
    if "policy_args" in given:
        update["policy_args"] = saved["policy_args"] | config.policy_args
    return config.model_copy(update=update)
