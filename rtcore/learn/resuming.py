"""Settings of a resumed run: those of the run before it, except for what the user gives again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtcore.config.run import RuntimeConfig, flat, make_config
from rtcore.errors import ConfigError
from rtcore.files.trust import refuse_code
from rtcore.files.values import from_json
from rtcore.learn.checkpoint import FOLDER, find_state_folder, read_state

#: Not taken over: they concern the terminal or these files, `resolve_policy` takes them from the checkpoint, or they
#: say where frames are sent to, or who may step in, which no file decides.
_NOT_TAKEN = {
    "resume",
    "policy_checkpoint",
    "out",
    "live",
    "workers_at",
    "remote_keys",
    "operator",
    "policy",
    "policy_args",
    "obs_history",
    "obs_every",
    "act_history",
}
#: Settings of one world: not taken over if another world is given.
_OF_THE_WORLD = {"env_args", "rom", "fps", "noop_action"}


def with_resumed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` of a config, with those of the run that `resume` names where they are missing.

    Raises:
        ConfigError: There is nothing to resume, its settings are not known here, or it would run code or a ROM that was
            not named again.
    """
    fields = flat(fields)
    path = fields.get("resume")
    if path is None:
        return fields
    folder = find_state_folder(Path(str(path)), "resume") or Path(str(path))
    saved = read_state(folder, "resume").get("config") or {}
    source = f"resume: {path}"
    left = _NOT_TAKEN | (_OF_THE_WORLD if fields.get("env_id", saved.get("env_id")) != saved.get("env_id") else set())
    # A run ends at whichever of the two comes first: an old limit must not end the run before a new one.
    left |= {"ticks", "duration"} if {"ticks", "duration"} & fields.keys() else set()
    taken = {name: value for name, value in saved.items() if name not in left and name not in fields}
    try:
        # Decode before the check, so that exactly the values that would be used are checked.
        taken = {name: from_json(value) for name, value in taken.items()}
        refuse_code(
            {name: taken[name] for name in ("env_id", "rom", "env_args", "on_overlap") if name in taken}, fields, source
        )
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    try:
        make_config(**taken)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{source} was made with settings that are not known here: {error}") from error
    if folder.resolve().parent.name == FOLDER:
        taken["out"] = folder.resolve().parent.parent
    return taken | fields


def settings_of(fields: Mapping[str, Any]) -> RuntimeConfig:
    """The config for these fields, with those of the resumed run if `resume` is among them."""
    return make_config(**with_resumed(fields))
