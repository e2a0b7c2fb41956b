"""The supervisor's look at the env process: what it raised, whether it lives, whether it hangs."""

from __future__ import annotations

from rtcore.channel import AtWorld
from rtcore.clock import ns_of
from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.errors import EnvironmentHung, WorkerDied
from rtcore.host.watchdog import Patience
from rtcore.memory.shared import SharedRun
from rtcore.processes.launcher import Child, child_error

_ILLEGAL_OPCODE = "(A Game Boy program that executes an illegal opcode never does.)"


def longest_silence_ns(run: ResolvedRun) -> int:
    """How long the env process may show no sign of life: it shows one at each tick, and may sleep until the next."""
    return ns_of(run.config.faults.env_timeout_s) + 2 * run.period_ns


def check_start(env: Child, at: AtWorld, config: RuntimeConfig, patience: Patience) -> None:
    """`EnvironmentHung` if a call of the world's takes too long while there is no heartbeat yet."""
    silent_ns, timeout_s = patience.silent_ns("env", at), config.faults.env_timeout_s
    if at.call and not at.may_take_a_start and silent_ns > ns_of(timeout_s):
        raise EnvironmentHung(
            f"the world (in the env process, pid {env.pid}) did not return within {timeout_s:g} s {at.call} "
            f"and was ended. Does {config.world.env_id} return from step() and reset()? {_ILLEGAL_OPCODE} "
            "Raise --env-timeout-s if it is only slow"
        )


def check_env(env: Child, shared: SharedRun | None, run: ResolvedRun | None, patience: Patience) -> None:
    """Raise what the env process raised, `WorkerDied`, or `EnvironmentHung` (who closes the run ends it then).

    `shared`, `run`: None before the world is known.
    """
    if env.failure is not None:
        raise child_error(env.failure, "the env process")
    if env.exitcode is not None:
        raise WorkerDied("env", 0, env.pid, env.exitcode)
    if shared is None or run is None or env.ready is None:
        return
    heartbeat_ns = shared.env_status["heartbeat_ns"]
    silent_ns = patience.silent_ns("env", heartbeat_ns)
    if heartbeat_ns and silent_ns > longest_silence_ns(run):
        raise EnvironmentHung(
            f"the env process (pid {env.pid}) was silent for {silent_ns / 1e9:.0f} s in tick "
            f"{shared.env_status['tick']} and was ended. Does {run.config.world.env_id} return from step() "
            f"and reset()? {_ILLEGAL_OPCODE} Raise --env-timeout-s if it is only slow"
        )
