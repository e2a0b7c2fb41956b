"""The supervisor's look at the env process: what it raised, whether it lives, whether it hangs."""

from __future__ import annotations

from rtcore.clock import Clock
from rtcore.config import RuntimeConfig
from rtcore.errors import EnvironmentHung, WorkerDied
from rtcore.launcher import Child, child_error
from rtcore.shared import SharedRun


def check_env(env: Child, shared: SharedRun | None, config: RuntimeConfig, clock: Clock) -> None:
    """Raise what the env process raised, `WorkerDied`, or (having killed it) `EnvironmentHung`."""
    if env.failure is not None:
        raise child_error(env.failure, "the env process")
    if env.exitcode is not None:
        raise WorkerDied("env", 0, env.pid, env.exitcode)
    if shared is None or env.ready is None:
        return
    heartbeat_ns = shared.env_status["heartbeat_ns"]
    if heartbeat_ns and clock.now_ns() - heartbeat_ns > config.env_timeout_s * 1e9:
        env.kill()
        raise EnvironmentHung(
            f"the env process (pid {env.pid}) was silent for {config.env_timeout_s:g} s in tick "
            f"{shared.env_status['tick']} and was killed. Does {config.env_id} return from step() "
            "and reset()? (A Game Boy program that executes an illegal opcode never does.) "
            "Raise --env-timeout-s if it is only slow"
        )
