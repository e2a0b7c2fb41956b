"""The supervisor's look at the env process: what it raised, whether it lives, whether it hangs."""

from __future__ import annotations

from rtcore.clock import ns_of
from rtcore.config import RuntimeConfig
from rtcore.errors import EnvironmentHung, WorkerDied
from rtcore.launcher import Child, child_error
from rtcore.patience import Patience
from rtcore.shared import SharedRun


def longest_silence_ns(config: RuntimeConfig, period_ns: int) -> int:
    """How long the env process may show no sign of life: it shows one at each tick, and may sleep until the next."""
    return ns_of(config.env_timeout_s) + 2 * period_ns


def check_env(env: Child, shared: SharedRun | None, config: RuntimeConfig, patience: Patience, period_ns: int) -> None:
    """Raise what the env process raised, `WorkerDied`, or `EnvironmentHung` (who closes the run ends it then)."""
    if env.failure is not None:
        raise child_error(env.failure, "the env process")
    if env.exitcode is not None:
        raise WorkerDied("env", 0, env.pid, env.exitcode)
    if shared is None or env.ready is None:
        return
    heartbeat_ns = shared.env_status["heartbeat_ns"]
    silent_ns = patience.silent_ns("env", heartbeat_ns)
    if heartbeat_ns and silent_ns > longest_silence_ns(config, period_ns):
        raise EnvironmentHung(
            f"the env process (pid {env.pid}) was silent for {silent_ns / 1e9:.0f} s in tick "
            f"{shared.env_status['tick']} and was ended. Does {config.env_id} return from step() "
            "and reset()? (A Game Boy program that executes an illegal opcode never does.) "
            "Raise --env-timeout-s if it is only slow"
        )
