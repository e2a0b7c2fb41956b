"""The policies that come with the package, one for each of its games; trained_*/README.md says how each was made."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import nn

from rtcore.errors import PolicyConfigError
from rtcore.learn.checkpoint import load_weights, read_state
from rtcore.memory.history import History
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import NETWORKS, network
from rtcore_workers.policies.choice import TRAINED_GAMES, trained_folder


def trained(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, game: str = "blocks", act_history: int = 0
) -> nn.Module:
    """The packaged network of a game with its weights. PolicyConfigError in a world with other spaces or histories."""
    if game not in TRAINED_GAMES.values():
        raise PolicyConfigError(
            f"policy 'trained' got game={game!r}; expected one of {', '.join(TRAINED_GAMES.values())}"
        )
    folder = trained_folder(game)
    state = read_state(folder, "policy")
    world, saved = state["world"], state["policy"]
    observation, action = ObservationSpec.from_json(world["observation"]), ActionSpec.from_json(world["action"])
    history = History(saved["obs_history"], saved["act_history"], saved.get("obs_every", 1))
    expected = history.stacked(observation).to_space(), action.to_space(), saved["act_history"]
    if (observation_space, action_space, act_history) != expected:
        raise PolicyConfigError(
            f"policy 'trained' got observations {observation_space}, actions {action_space}, act_history "
            f"{act_history}; expected {expected[0]}, {expected[1]}, {expected[2]}: it plays {world['env_id']} as "
            "it was trained there. Train one for this world with --learn dqn"
        )
    module, _ = network.build_module(
        saved["policy"],
        NETWORKS.get(saved["policy"]),
        {key: value for key, value in saved["policy_args"].items() if key != "pad_ms"},
        observation if not history.obs_history else history.stacked(observation),
        action,
        seed=0,
        chunk=1,
        act_history=act_history,
    )
    if not any(parameter.is_meta for parameter in module.parameters()):
        weights = {name: torch.from_numpy(array.copy()) for name, array in load_weights(folder, "policy").items()}
        module.load_state_dict(weights)
    return module
