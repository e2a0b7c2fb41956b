"""Weights from the user's own trainer to all workers of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, PolicyError
from rtcore.processes.workers import WorkerProcesses

_log = logging.getLogger(__name__)


def publish(
    config: RuntimeConfig, workers: WorkerProcesses, weights: Mapping[str, Any], updates: int, wait_ns: int
) -> int | None:
    """The version that `weights` got, or None if no buffer came free in time, or the run has ended meanwhile.

    Called in any thread, at any time: see `Runtime.publish`.
    """
    if config.learning.learn is not None:
        raise ConfigError(
            f"publish: this run learns by itself (learn={config.learning.learn}), and its next publication would "
            "overwrite yours; publish from a run without learn"
        )
    store = workers.params
    if workers.is_closed:
        return None
    if store is None:
        raise PolicyError(
            f"policy {config.agent.policy!r} has no network to publish weights for; expected a network, such as "
            "--policy nature or module:factory"
        )
    manifest = store.manifest()
    arrays = manifest.check(weights, "the published state_dict")
    version = store.publish(lambda buffer: manifest.write(buffer, arrays), updates=updates, wait_ns=wait_ns)
    if version is None:
        _log.debug("no buffer came free: the weights are not published")
        return None
    _log.debug("version %d of the weights is out", version.version)
    return version.version
