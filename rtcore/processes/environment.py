"""The env process as the supervisor sees it: what its world looks like, whether it lives or hangs, and how it is ended.

It is never restarted: the world's state would be lost.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from rtcore.clock import NS_PER_MS, NS_PER_S, Clock, ns_of
from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.errors import EnvironmentHung, RtcoreError, StartupError
from rtcore.host.descendants import ENV, SHOW_STACK
from rtcore.host.watchdog import Watchdog
from rtcore.memory.shared import SharedRun
from rtcore.messages import AtWorld, WorldSpec
from rtcore.processes.launcher import ENDED, Child, Launcher

ENV_ENTRY = "rtcore.loop.process:main"
_ILLEGAL_OPCODE = "(A Game Boy program that executes an illegal opcode never does.)"
_GRACE_NS = 2 * NS_PER_S
_POLL_NS = 5 * NS_PER_MS


class EnvironmentProcess:
    """Used by the supervising thread. `child`: the process, which has been started."""

    def __init__(self, child: Child, config: RuntimeConfig, clock: Clock, watchdog: Watchdog) -> None:
        self.child = child
        self._config = config
        self._clock = clock
        self._watchdog = watchdog
        self._at_world = AtWorld("")
        #: None before the world is known.
        self._shared: SharedRun | None = None
        self._run: ResolvedRun | None = None
        self._hangs = self._was_ended = False

    # -- start ---------------------------------------------------------------------------------------------

    @property
    def doing(self) -> str:
        """What it asks of the world at the moment, for people."""
        return f"the world {self._config.world.env_id} ({self._at_world.call or 'being made'})"

    def poll_spec(self) -> WorldSpec | None:
        """What the world looks like, once that is known. `EnvironmentHung` if the world does not return from a call."""
        messages = self.child.messages
        while messages:
            message = messages.popleft()
            if isinstance(message, WorldSpec):
                return message
            if not isinstance(message, AtWorld):
                raise StartupError(f"the env process sent {message!r:.200} first; expected what its world looks like")
            self._at_world = message
        at, limit_s = self._at_world, self._config.faults.env_timeout_s
        silent_ns = self._silent_ns(at, ns_of(limit_s))
        if at.call and not at.may_take_a_start and silent_ns > ns_of(limit_s):
            self._hangs = True
            raise EnvironmentHung(
                f"the world (in the env process, pid {self.child.pid}) did not return within {limit_s:g} s {at.call} "
                f"and was ended. Does {self._config.world.env_id} return from step() and reset()? {_ILLEGAL_OPCODE} "
                "Raise --env-timeout-s if it is only slow"
            )
        return None

    def begin_watching(self, run: ResolvedRun, shared: SharedRun) -> None:
        """The run's shared memory is there: from now on it shows its heartbeat in it."""
        self._run, self._shared = run, shared

    # -- watch ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what it raised, `WorkerDied`, or `EnvironmentHung` (then it is ended when the run is closed)."""
        child, shared = self.child, self._shared
        if (error := child.error) is not None:
            raise error
        if child.exitcode == 0 and shared is not None and shared.env_status["finished"]:
            return  # this program stood still for so long after the run's end that the world was closed
        if child.exitcode is not None:
            raise child.death
        if shared is None or child.ready is None:
            return
        heartbeat_ns = shared.env_status["heartbeat_ns"]
        silent_ns = self._silent_ns(heartbeat_ns, self._longest_silence_ns)
        if heartbeat_ns and silent_ns > self._longest_silence_ns:
            self._hangs = True
            raise EnvironmentHung(
                f"the env process (pid {child.pid}) was silent for {silent_ns / 1e9:.0f} s in tick "
                f"{shared.env_status['tick']} and was ended. Does {self._config.world.env_id} return from step() "
                f"and reset()? {_ILLEGAL_OPCODE} Raise --env-timeout-s if it is only slow"
            )

    def _silent_ns(self, sign: object, limit_ns: int) -> int:
        return self._watchdog.silent_ns("env", sign, cpu_use=self.child.cpu_use, limit_ns=limit_ns)

    @property
    def _longest_silence_ns(self) -> int:
        """How long it may show no sign of life: it shows one at each tick, and may sleep until the next."""
        period_ns = self._run.period_ns if self._run is not None else 0
        return ns_of(self._config.faults.env_timeout_s) + 2 * period_ns

    # -- end -----------------------------------------------------------------------------------------------

    @property
    def is_healthy(self) -> bool:
        """It has neither failed nor hung, and the supervisor has not ended it: an error at its end is a new one."""
        known = self.child.failure is not None or self.child.exitcode is not None or self._was_ended
        return not known and self._shared is not None and not self._hangs

    @property
    def grace_ns(self) -> int:
        """How long it gets to finish its tick, or to close its world [ns]."""
        return 0 if self._hangs else self._longest_silence_ns

    def await_exit(self, launcher: Launcher) -> RtcoreError | None:
        """After the order to end: wait until it has ended. Returns what went wrong while its world was closed."""
        is_healthy, child = self.is_healthy, self.child
        if is_healthy:
            self._wait_while(lambda: child.is_alive, launcher, self._longest_silence_ns)
        state = child.state if child.is_alive else ENDED[0]
        took_too_long = state not in ENDED  # asked once: it may end by itself at this very moment
        if took_too_long:
            self.end(launcher)
        launcher.poll_until(lambda: child.exitcode is not None, _GRACE_NS)
        if not is_healthy:
            return None
        if took_too_long:
            return EnvironmentHung(
                f"closing {self._config.world.env_id} took longer than {self._config.faults.env_timeout_s:g} s and was "
                f"cut short ({state}; where it stood is on stderr): what its close() writes may not be whole (its "
                "atexit functions, and the processes that multiprocessing waits for, belong to it). Raise "
                "--env-timeout-s if it is only slow"
            )
        return child.error or (child.death if child.exitcode else None)

    def await_closing(self, launcher: Launcher) -> None:
        """After the fork server has gone, whereupon the kernel tells it to end: it gets the time that a step has."""
        self._wait_while(lambda: self.child.is_alive, launcher, self._longest_silence_ns)
        self.child.kill()

    def end(self, launcher: Launcher) -> None:
        """End it, because it does not end by itself; where it stands goes to stderr.

        SIGTERM interrupts it and makes it close the world. If it shows no sign of life after that (C code that never
        returns), it is killed. Asks the kernel whether it lives, as the fork server may be gone: then SIGTERM has come
        before, and may have been heard.
        """
        self._was_ended = True
        if self._shared is None:
            raise RuntimeError("before its world is known it is killed with the fork server")
        child, status = self.child, self._shared.env_status
        heartbeat_ns = status["heartbeat_ns"]
        if not launcher.is_lost:  # SIGTERM has not come yet
            child.kill(SHOW_STACK)
        child.kill(signal.SIGTERM)
        self._wait_while(lambda: child.is_alive and status["heartbeat_ns"] == heartbeat_ns, launcher, _GRACE_NS)
        if status["heartbeat_ns"] != heartbeat_ns or launcher.is_lost:
            self._wait_while(lambda: child.is_alive, launcher, self._longest_silence_ns)
        child.kill()
        self._wait_while(lambda: child.is_alive, launcher, _GRACE_NS)

    def _wait_while(self, going_on: Callable[[], bool], launcher: Launcher, limit_ns: int) -> None:
        """Time in which everybody stood still does not count, nor that in which others left it no CPU."""
        watchdog = Watchdog(self._clock)
        while going_on() and watchdog.silent_ns(ENV, None, cpu_use=self.child.cpu_use) < limit_ns:
            launcher.poll_until(lambda: not going_on(), _POLL_NS)
            self._clock.sleep_until_ns(self._clock.now_ns() + _POLL_NS)
