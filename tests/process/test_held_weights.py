"""Weights that a holder keeps on a device, in real runs. Without a GPU the device is a stand-in: shared memory.

Holder, store, workers, supervisor and their deaths are real there; what is not is the memory that is copied to. Tests
that take `device` run on a GPU as well, if there is one; the others use the stand-in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtcore
from rtcore.memory.segments import files_of
from rtcore.memory.weights import ParamStore, attach_store
from rtcore.messages import DeviceBuffers
from rtcore.processes.launcher import PRELOAD_NETWORK
from rtcore.runtime.runtime import Runtime
from rtcore_workers.weights.device_memory import NotShared, open_memory
from tests.support.drills import stop, wait_for, wait_until_applied
from tests.support.weight_parts import PLAYING, applied, check_each_came_from_one_version, start_publisher, state

pytestmark = pytest.mark.process

HELD: dict[str, Any] = PLAYING | {"device": "cpu", "weights_sharing": "stand-in"}
BEING_WRITTEN = -1
#: An inference that outlasts several versions.
LONG = {"pause_ms": 40}
KINDS = {"cpu": "stand-in", "cuda:0": "cuda-ipc"}
on_each_device = pytest.mark.parametrize(
    "device",
    (
        "cpu",
        pytest.param(
            "cuda:0",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ),
)


@contextmanager
def held_run(device: str = "cpu", **settings: Any) -> Iterator[tuple[Runtime, ParamStore]]:
    """A run whose workers compute with a holder's memory, and its holder's store; nothing of it may be left."""
    with rtcore.Runtime(**HELD | {"device": device} | settings) as runtime:
        store = attach_store(runtime.run_id, "holder0")
        yield runtime, store
        runtime.stop()
        runtime.wait()
    assert files_of(runtime.run_id) == []


def holder_pid(runtime: Runtime) -> int:
    (pid,) = runtime._supervisor.workers.holders.pids.values()
    assert pid > 1
    return pid


def kill(pid: int) -> None:
    assert pid > 1
    os.kill(pid, signal.SIGKILL)


def answered_since(runtime: Runtime) -> None:
    """Until every worker has answered again."""
    before = [worker.inferences for worker in runtime.stats().workers]
    wait_for(
        lambda: all(now.inferences > then for now, then in zip(runtime.stats().workers, before, strict=True)),
        "every worker to answer",
    )


def memory_mb(pid: int, what: str, of: str) -> float:
    """Of the mappings whose name has `what` in it."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = what in line
        elif inside and line.startswith(f"{of}:"):
            total += int(line.split()[1])
    return total / 1024


@on_each_device
def test_the_workers_of_a_device_compute_with_what_its_holder_brings_there(tmp_path: Path, device: str) -> None:
    with held_run(device, workers=2, out=tmp_path) as (runtime, store):
        (note,) = runtime.header["policy"]["notes"]
        assert note == f"weights: one copy on {device} for all its workers, by {KINDS[device]}"
        for version in range(2, 30):
            assert runtime.publish(state(version), wait_s=30) == version
        wait_for(lambda: store.newest_version() == 29, "the newest version on the device")
        wait_until_applied(tmp_path, 29)
    weights = runtime.summary()["weights"]
    assert (weights["version"], weights["torn"], weights["workers_behind"]) == (29, 0, [])
    assert weights["holders"] == [
        {
            "device": device,
            "memory": KINDS[device],
            "refused": "",
            "version": 29,
            "waits": weights["holders"][0]["waits"],
            "skipped": weights["holders"][0]["skipped"],
            "restarts": 0,
            "private_workers": [],
        }
    ]
    versions = check_each_came_from_one_version(tmp_path)
    assert 29 in versions
    assert {row[3] for row in applied(tmp_path) if row[0] == 29} == {weights["checksum"]}, "that of the host's copy"


@pytest.mark.slow
def test_a_holder_that_cannot_have_its_memory_leaves_each_worker_its_own(
    monkeypatch, tmp_path: Path, said: list[str]
) -> None:
    """In the holder alone: where a GPU shares nothing between processes, it is the one to find out."""
    (tmp_path / "no_memory.py").write_text(
        "import rtcore_workers.weights.device_memory as memory, rtcore_workers.holder as holder\n"
        "def allocate(*_): raise memory.NotShared('operation not supported (801)')\n"
        "holder.allocate = allocate\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("rtcore.processes.supervisor.PRELOAD_NETWORK", (*PRELOAD_NETWORK, "no_memory"))
    with rtcore.Runtime(**HELD | {"workers": 2}) as runtime:
        assert runtime.publish(state(2), wait_s=30) == 2
        answered_since(runtime)
        notes = runtime.header["policy"]["notes"]
    why = "operation not supported (801)"
    assert notes == [f"weights: cpu has no copy for all its workers: {why}"]
    assert f"the weights on cpu are not shared: {why}" in said
    (holder,) = runtime.summary()["weights"]["holders"]
    assert (holder["refused"], holder["version"], holder["private_workers"]) == (why, 0, [0, 1])


@pytest.mark.slow
@on_each_device
def test_every_action_comes_from_one_version_through_thousands_of_publications(tmp_path: Path, device: str) -> None:
    with held_run(device, out=tmp_path, policy_args=LONG) as (runtime, store):
        publisher = start_publisher(runtime.run_id)
        acted = runtime.stats().counters
        wait_for(
            lambda: store.newest_version() > 3000 and runtime.stats().counters["acted"] > acted["acted"] + 300,
            "3000 versions, of which enough are played",
        )
        publisher.kill()
        publisher.wait()
        newest = runtime._supervisor.params
        assert newest is not None
        wait_for(lambda: store.newest_version() == newest.newest_version(), "the last version on the device")
        last = store.newest_version()
        wait_until_applied(tmp_path, last)
    weights = runtime.summary()["weights"]
    assert (weights["torn"], weights["workers_behind"], weights["version"]) == (0, [], last)
    # A CUDA graph knows no pause.
    assert device != "cpu" or weights["holders"][0]["waits"] > 20, "inferences outlasted versions"
    versions = check_each_came_from_one_version(tmp_path)
    assert len(versions) > 50
    assert max(versions) == last


@pytest.mark.slow
def test_all_workers_of_a_device_share_one_copy_and_the_host_s_is_nobody_s() -> None:
    megabytes = 48
    with held_run(policy_args={"num_parameters": megabytes << 18}) as (runtime, _):
        answered_since(runtime)
        pids = list(runtime.worker_pids.values())
        holder = holder_pid(runtime)
        mapped = [memory_mb(pid, "rtcore-stand-in", "Rss") for pid in pids]
        shares = [memory_mb(pid, "rtcore-stand-in", "Pss") for pid in (*pids, holder)]
        private = [memory_mb(pid, "rtcore-stand-in", "Private_Dirty") for pid in pids]
    assert len(pids) == 4
    assert min(mapped) > megabytes * 0.9, "each worker has read all of it"
    assert sum(shares) < 3.2 * megabytes, "together they have the holder's three buffers, once"
    assert max(private) < 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@on_each_device
def test_killed_workers_and_holders_spoil_no_weights_and_stop_nobody(tmp_path: Path, device: str) -> None:
    """A holder's workers go with it: nobody may compute with a dead process's GPU memory."""
    rng = np.random.default_rng(0)
    with held_run(device, out=tmp_path) as (runtime, _):
        publisher = start_publisher(runtime.run_id)
        for round_number in range(4):
            store = attach_store(runtime.run_id, "holder0")
            wait_for(lambda store=store: store.newest_version() > 20, "versions on the device")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.02))
            pids, holder = runtime.worker_pids, holder_pid(runtime)
            if round_number % 2:
                kill(pids[1])
                wait_for(
                    lambda old=pids[1]: runtime.worker_pids.get(1, old) != old,  # type: ignore[misc]
                    "a new worker",
                )
                assert holder_pid(runtime) == holder
            else:
                kill(holder)
                wait_for(
                    lambda old=holder: runtime._supervisor.workers.holders.pids.get(device, old) != old,  # type: ignore[misc]
                    "a new holder",
                )
                wait_for(
                    lambda pids=pids: not set(runtime.worker_pids.values()) & set(pids.values()),  # type: ignore[misc]
                    "its workers to be replaced",
                )
            wait_for(lambda: len(runtime.worker_pids) == 4, "all workers")
            answered_since(runtime)
        publisher.kill()
        publisher.wait()
        restarts = [worker.restarts for worker in runtime.stats().workers]
    assert restarts == [2, 4, 2, 2]
    weights = runtime.summary()["weights"]
    assert (weights["torn"], weights["holders"][0]["restarts"], weights["holders"][0]["private_workers"]) == (0, 2, [])
    assert runtime.summary()["restart_reasons"] == {"its weight holder died": 8, "killed by SIGKILL": 2}
    assert len(check_each_came_from_one_version(tmp_path)) > 6


@pytest.mark.slow
def test_a_holder_killed_in_the_middle_of_a_copy_leaves_the_version_before_and_frees_what_it_copied(
    tmp_path: Path,
) -> None:
    with held_run(out=tmp_path, policy_args={"num_parameters": 16 << 18}) as (runtime, store):
        publisher = start_publisher(runtime.run_id)
        holder = holder_pid(runtime)
        stopped_in_a_copy = False
        while not stopped_in_a_copy:
            os.kill(holder, signal.SIGCONT)
            time.sleep(0.003)
            stop(holder)
            stopped_in_a_copy = any(head[0] == BEING_WRITTEN for head in store._heads)
        newest = store.newest()
        answered_since(runtime)
        kill(holder)
        assert store.newest() == newest, "the copy it was at was never announced"
        wait_for(
            lambda: runtime._supervisor.workers.holders.pids.get("cpu", holder) != holder,
            "a new holder",
        )
        publisher.kill()
        publisher.wait()
        params = runtime._supervisor.params
        assert params is not None
        for _ in range(3):
            version = params.newest_version() + 1
            assert runtime.publish(state(version, 16 << 18), wait_s=30) == version, "no buffer stayed claimed"
        answered_since(runtime)
    assert runtime.summary()["weights"]["torn"] == 0
    check_each_came_from_one_version(tmp_path)


@pytest.mark.slow
def test_a_stopped_worker_keeps_one_buffer_and_the_others_move_on(tmp_path: Path) -> None:
    with held_run(out=tmp_path, hang_timeout_s=60, policy_args=LONG) as (runtime, store):
        victim = runtime.worker_pids[2]
        assert victim > 1
        claim = store._claims[2]
        while True:
            stop(victim)
            if claim[0]:
                break
            os.kill(victim, signal.SIGCONT)
            time.sleep(0.007)
        kept = (claim[0] & 7) - 1
        assert store._heads[kept][0] == 1, "its version"
        for version in range(2, 40):
            assert runtime.publish(state(version), wait_s=30) == version
        wait_for(lambda: store.newest_version() == 39, "the newest version on the device")
        assert store._heads[kept][0] == 1
        os.kill(victim, signal.SIGCONT)
        answered_since(runtime)
    assert runtime.summary()["weights"]["torn"] == 0
    check_each_came_from_one_version(tmp_path)


@pytest.mark.slow
def test_a_holder_ends_with_a_killed_program() -> None:
    code = (
        "import json, sys, rtcore\n"
        "from tests.process.test_held_weights import HELD\n"
        "with rtcore.Runtime(**HELD | {'workers': 2}) as runtime:\n"
        "    pids = [*runtime.worker_pids.values(), *runtime._supervisor.workers.holders.pids.values()]\n"
        "    print(json.dumps([runtime.run_id, *pids]), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    with program, program.stdout as said:
        run_id, *pids = json.loads(said.readline())
        program.kill()
    assert len(pids) == 3
    wait_for(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids), "all of it to end")
    wait_for(lambda: files_of(run_id) == [], "shared memory to be removed")


def test_memory_goes_with_its_owner() -> None:
    code = (
        "from rtcore_workers.weights.device_memory import allocate\nimport json\n"
        "print(json.dumps(vars(allocate('stand-in', 'cpu', 3, 100).exported)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with pytest.raises(NotShared, match="No such file"):
        open_memory(DeviceBuffers(**json.loads(done.stdout)), "cpu")
