"""What a recording, a checkpoint or a run's folder may decide: settings, but never which code runs.

Its config may name worlds and policies that are registered here anyway: Gymnasium's ids, rtcore's own. What would be
imported (`module:factory`, `module:id`) or run (a ROM) has to be given by the user as well. A settings file given with
--config is the user's own, and may name anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtcore.errors import ConfigError

#: Ids of Gymnasium that pass an id, which may be `module:id`, to the old library gym.
_HANDS_ON = ("GymV21Environment", "GymV26Environment")


def refuse_code(settings: Mapping[str, Any], given: Mapping[str, Any], source: str) -> None:
    """Refuse what `settings` of a file would run here, unless the user says the same.

    Args:
        settings: Fields of `RuntimeConfig` as the file has them.
        given: Fields that the user said: on the command line, or in a program.
        source: What the file is, for the error: "resume: runs/a/config.json".

    Raises:
        ConfigError: It names the flag to give.
    """
    for field in ("env_id", "policy", "on_overlap", "operator"):
        named = settings.get(field)
        if named is None:
            continue
        if field not in given and names_code(field, named):
            raise ConfigError(_refusal(source, field, named, "code"))
        if given.get(field, named) != named:
            flag = field.replace("_", "-")
            raise ConfigError(f"{source}: its {flag} is {named!r}, the given one {given[field]!r}: it is of another")
    rom = rom_of(settings)
    if rom is not None and rom_of(given) is None:
        raise ConfigError(_refusal(source, "rom", rom, "a ROM"))


def names_code(field: str, value: Any) -> bool:
    """Whether a setting (`env_id`, `policy`, `on_overlap`, `operator`) names something that is imported."""
    return ":" in str(value) or (field == "env_id" and str(value).rpartition("/")[2].startswith(_HANDS_ON))


def rom_of(settings: Mapping[str, Any]) -> str | None:
    """The ROM that settings name, as `rom` or among the arguments of the world."""
    arguments = settings.get("env_args")
    rom = settings.get("rom") or (arguments.get("rom") if isinstance(arguments, Mapping) else None)
    return str(Path(str(rom))) if rom is not None else None


def _refusal(source: str, field: str, value: Any, what: str) -> str:
    flag = f"--{field.replace('_', '-')} {shlex.quote(str(value))}"
    return (
        f"{source} asks for {what}: {field.replace('_', '-')} {value!r}. A file does not choose what runs here. If you "
        f"know it and trust it, say so: {flag} (in a program: {field}={value!r})"
    )
