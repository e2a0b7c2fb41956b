"""Workers elsewhere as actors of a Ray cluster: found by name, also after Ray has started one anew."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

import rtcore
from rtcore_workers.remote.keys import write_pair
from tests.support.drills import started, wait_for, wait_for_answers

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """The address of a Ray cluster of this machine, and the process that it is below."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "4"]
    command += ["--port", address.partition(":")[2], "--include-dashboard=false", "--object-store-memory", "80000000"]
    with started(*command, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}) as head:
        assert head.stdout is not None
        while "runtime started" not in (line := head.stdout.readline()):
            assert line, "it has ended"
        yield address, psutil.Process(head.pid)
        head.send_signal(signal.SIGTERM)
        head.communicate(timeout=150)


def test_workers_of_a_ray_cluster_are_found_by_name_and_back_when_ray_has_started_them_anew(
    cluster: tuple[str, psutil.Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, head = cluster
    monkeypatch.setenv("RAY_ADDRESS", address)
    run_keys, worker_keys = write_pair(tmp_path / "keys")
    command = [sys.executable, "-m", "rtcore.cli.worker", "--ray", "2", "--name", "far", "--ray-address", address]
    with ExitStack() as stack:
        workers = stack.enter_context(started(*command, "--keys", str(worker_keys), "--device", "cpu"))
        assert workers.stdout is not None
        said = ""
        while "--workers-at ray:far-0,ray:far-1" not in said:
            said += (line := workers.stdout.readline())
            assert line, said
        elsewhere = {"workers": 2, "workers_at": "ray:far-0,ray:far-1", "remote_keys": run_keys}
        with rtcore.Runtime(env_id="CartPole-v1", policy="random", duration=600, **elsewhere) as runtime:
            wait_for_answers(runtime, 0)
            actors = [each for each in head.children(recursive=True) if "ray::FarSide" in " ".join(each.cmdline())]
            assert len(actors) == 2
            actors[0].kill()
            wait_for(lambda: sum(worker.restarts for worker in runtime.stats().workers) > 0, "a link to be lost")
            wait_for(lambda: all(worker.pid > 0 for worker in runtime.stats().workers), "both to be back")
            for worker in (0, 1):
                wait_for_answers(runtime, worker)
            runtime.stop()
            runtime.wait()
        assert set(runtime.summary()["restart_reasons"]) <= {f"link to ray:far-{worker} lost" for worker in (0, 1)}
        workers.send_signal(signal.SIGTERM)
        workers.communicate(timeout=150)
        assert workers.returncode == 128 + signal.SIGTERM
