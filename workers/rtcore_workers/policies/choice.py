"""Which policy a run plays where that was not said: as its weights' checkpoint says.

Imports no torch. What follows from the world's observations alone is `rtcore.learn.policy`.
"""

from __future__ import annotations

from pathlib import Path

from rtcore.config.groups import AgentSettings
from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.files.trust import refuse_code
from rtcore.files.values import from_json
from rtcore.learn.checkpoint import find_state, read_state
from rtcore.learn.policy import AUTO
from rtcore_workers.policies import check_named

#: The policy that comes with the package.
TRAINED = "trained"
#: Where it plays, and the name of its weights.
TRAINED_GAMES = {"rtcore/Blocks-v0": "blocks", "rtcore/Catch-v0": "catch"}
#: How it is asked: what it sees, and what becomes of its answer.
_HOW = ("obs_history", "obs_every", "act_history", "chunk", "chunk_rest", "policy_extras", "context_ticks")
_FIELDS = ("policy", "policy_args", *_HOW)


def trained_folder(game: str) -> Path:
    """The checkpoint of the policy `trained` for one of `TRAINED_GAMES`."""
    return Path(__file__).parent / f"trained_{game}"


def trained_game(config: RuntimeConfig) -> str:
    """Which game the policy `trained` is to play: `game` of its arguments, or the world's. ConfigError if it cannot."""
    game = config.agent.policy_args.get("game", TRAINED_GAMES.get(config.world.env_id.rpartition(":")[2]))
    if game not in TRAINED_GAMES.values():
        what = f"game={game!r}" if game is not None else config.world.env_id
        raise ConfigError(
            f"policy trained plays {' and '.join(TRAINED_GAMES)}; got {what}. Train one for this world with "
            "--learn dqn --policy auto. If it is one of these two in a wrapper of your own, say which: "
            f"--policy-args game={'|'.join(TRAINED_GAMES.values())}"
        )
    return str(game)


def check_policy(agent: AgentSettings) -> None:
    """PolicyConfigError for a policy that does not exist, or takes no such arguments, as far as that costs no import.

    Workers tell the rest when they build it.
    """
    if agent.policy != AUTO:
        check_named(agent.policy, agent.policy_args)


def resolve_policy(config: RuntimeConfig) -> RuntimeConfig:
    """The config with policy, arguments, histories and world as the weights' checkpoint says, where not given.

    For --policy trained, --policy-checkpoint and --resume. Single arguments that were given win over the
    checkpoint's. ConfigError if a checkpoint is there but cannot be read, or if its policy or world would be imported
    and was not given as well.
    """
    given = config.given.keys() - ({"policy"} if config.agent.policy == AUTO else set())
    if config.agent.policy == TRAINED:
        game = trained_game(config)
        saved = read_state(trained_folder(game), "policy")["policy"]
        found = {name: saved[name] for name in _HOW if name in saved and name not in given}
        # At the delay that it learned to play with: at others it plays worse, at some not at all.
        padding = {name: value for name, value in saved["policy_args"].items() if name == "pad_ms"}
        found["policy_args"] = {"game": game} | padding | config.agent.policy_args
        return config.replace(**found)
    weights = config.weights
    path, what = weights.resume or weights.policy_checkpoint, "resume" if weights.resume else "policy-checkpoint"
    state = find_state(path, what) if path is not None else None
    if state is None:
        return config
    saved = state["policy"]
    if "policy" in given and config.agent.policy != saved.get("policy"):
        return config
    said = {name: value for name, value in config.given.items() if name in given}
    source = f"{what}: {path}"
    world = {} if "env_id" in given else state.get("world", {})
    world = {name: world[name] for name in ("env_id", "env_args") if name in world and name not in given}
    refuse_code({name: saved[name] for name in ("policy",) if name in saved} | world, said, source)
    try:
        update = {name: from_json(saved[name]) for name in _FIELDS if name in saved and name not in given}
        update |= {name: from_json(value) for name, value in world.items()}
        if "policy_args" in given:
            update["policy_args"] = from_json(saved.get("policy_args", {})) | config.agent.policy_args
        return make_config(**(said | update))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{source} has settings that do not go with the given ones: {error}") from error
