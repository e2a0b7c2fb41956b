"""What a process that is forked does with a signal that has a handler of rtcore's in its parent."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.unit


def said_by(script: str) -> str:
    """What a program of its own prints: a handler is not taken back."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "handled",
    [
        "signal.signal(signal.SIGTERM, not_in_forks(lambda *_: None))",
        "stack.enter_context(signals_as_exceptions())",
        "stack.enter_context(stopping_by(print))",
    ],
)
def test_a_daemon_that_is_ended_before_it_has_run_ends(handled: str) -> None:
    script = f"""
        import contextlib, multiprocessing, signal, time
        from rtcore.cli.exits import signals_as_exceptions, stopping_by
        from rtcore.host.forks import not_in_forks

        with contextlib.ExitStack() as stack:
            {handled}
            for _ in range(10):
                daemon = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
                daemon.start()
                daemon.terminate()
                daemon.join(20)
                print(daemon.exitcode, end=" ")
                daemon.kill()
        """
    assert said_by(script) == "-15 " * 10


def test_what_comes_during_a_fork_reaches_the_parent_when_it_is_over() -> None:
    script = """
        import os, signal
        from rtcore.host.forks import not_in_forks

        def stop(signum, frame):
            raise InterruptedError(f"in {frame.f_code.co_name}")

        def fork():
            if os.fork() == 0:
                os._exit(0)

        parent = os.getpid()
        os.register_at_fork(before=lambda: os.kill(parent, signal.SIGTERM))  # the last of all, right before the fork
        signal.signal(signal.SIGTERM, not_in_forks(stop))
        try:
            fork()
        except InterruptedError as error:
            print(error, "blocked:", signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        """
    assert said_by(script) == "in fork blocked: set()\n"


def test_a_child_keeps_what_its_parent_had_blocked_or_handled_itself() -> None:
    script = """
        import os, signal
        from rtcore.host.forks import not_in_forks

        signal.signal(signal.SIGTERM, not_in_forks(lambda *_: None))
        signal.signal(signal.SIGHUP, print)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if os.fork() == 0:
            is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            print(is_default, signal.getsignal(signal.SIGHUP) is print, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        else:
            os.wait()
        """
    assert said_by(script) == "True True {<Signals.SIGINT: 2>}\n"
