"""Ray, where a program of rtcore uses it: found, quiet, and with errors in words."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rtcore.errors import ConfigError
from rtcore.host.extras import import_extra

#: Read by Ray when it is imported: nothing is reported to its makers, and what it says of itself stays in its files.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
#: How long a cluster may take to answer; Ray itself would go on asking for minutes.
_REACH_TIMEOUT_S = 10.0
#: Of Ray's own, which its programs and this one print without being asked.
_QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}


def import_ray(what: str) -> Any:
    """Ray. ConfigError, which names `what` needs it, where it is not installed."""
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    return import_extra("ray", what, "ray")


def reach(address: str | None) -> None:
    """ConfigError if nobody listens at that "host:port" or "ray://host:port"; other addresses Ray looks up itself."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"no Ray cluster can be reached at {address}: {getattr(error, 'strerror', None) or error}; expected where "
            "`ray start --head` said that it listens"
        ) from error


def connect(ray: Any, address: str | None, **settings: Any) -> None:
    """Connect to a cluster.

    Args:
        ray: The module.
        address: Of the cluster ("auto": one that runs on this machine); None: a Ray of the program's own.
        settings: More of `ray.init`.

    Raises:
        ConfigError: It cannot be reached, or started.
    """
    try:
        with _signal_handlers_kept():
            ray.init(address=address or "local", **_QUIET, **settings)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        if address is None:
            raise ConfigError(f"Ray cannot be started here: {error}") from error
        hint = "" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token"
        raise ConfigError(f"no Ray cluster can be reached at {address}: {error}{hint}") from error


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray puts one of its own in the place of this program's, which then could not end it properly."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
