"""Packages that only a part of rtcore needs: those of its extras."""

from __future__ import annotations

import importlib
from typing import Any

from rtcore.errors import ConfigError


def import_extra(module: str, what: str, extra: str) -> Any:
    """A module of an extra.

    Args:
        module: Its full name.
        what: Of rtcore, that needs it: begins the error's sentence.
        extra: What to install: `rtcore[extra]`.

    Returns:
        The module.

    Raises:
        ConfigError: It cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{what} needs {package}, which cannot be imported ({error}): pip install 'rtcore[{extra}]'"
        ) from error
