"""The campaign of real runs finds the process that a fault is for."""

from __future__ import annotations

import sys

import psutil
import pytest

from rtcore.torture.program import Program
from tests.support.drills import wait_for

pytestmark = pytest.mark.process

#: A fork server and an env process, each with a child that still is as it was forked; each waits to be ended.
SERVER = """
import ctypes, os, signal
if os.fork():  # as rtcore's does: first comes the server, then its children
    if not os.fork():
        ctypes.CDLL(None).prctl(15, b"rt-env")
        if os.fork():
            print(f"making the world of {os.getpid()}", flush=True)
signal.pause()
"""
PROGRAM = """
import signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], "rtcore.processes.forkserver"])
signal.pause()
"""


def test_a_child_that_was_just_forked_is_not_taken_for_its_parent() -> None:
    """Seeds 22949 and 23138: one got the signal in its stead, and the run was judged as if its parent had."""
    program = Program((), "just-forked", wrapper=(sys.executable, "-c", PROGRAM, SERVER))
    try:
        wait_for(lambda: "making the world" in program.output, "the env process to be there")
        everybody = psutil.Process(program.pid).children(recursive=True)
        assert len(everybody) == 4
        roles = program.roles()
        assert set(roles) == {"parent", "forkserver", "env"}
        assert roles["forkserver"].ppid() == program.pid
        assert roles["env"].pid == int(program.output.split()[-1])
    finally:
        program.clean_up()
