"""Weights in a real run: one version per action whoever publishes and whoever dies, one copy for all workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import rtcore
from rtcore.errors import PolicyError
from rtcore.memory.segments import files_of
from tests.support.drills import stop, wait_for, wait_until_applied
from tests.support.weight_parts import (
    PLAYING,
    applied,
    check_each_came_from_one_version,
    start_publisher,
    state,
)

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_every_action_comes_from_one_version_through_thousands_of_publications(tmp_path: Path) -> None:
    with rtcore.Runtime(**PLAYING, out=tmp_path) as runtime:
        skipped = 0
        version = 1
        # And while enough of them are played: the workers may be kept from a CPU.
        while version < 2500 or runtime.stats().counters["acted"] < 200:
            got = runtime.publish(state(version + 1), updates=version)
            skipped += got is None
            assert got in (None, version + 1)
            version = got or version
        wait_until_applied(tmp_path, version)
        runtime.stop()
        runtime.wait()
    summary = runtime.summary()
    assert summary["leftover_shared_memory"] == []
    weights = summary["weights"]
    assert (weights["version"], weights["updates"], weights["torn"]) == (version, version - 1, 0)
    assert weights["skipped"] == skipped
    assert weights["workers_behind"] == []
    versions = check_each_came_from_one_version(tmp_path)
    assert len(versions) > 50
    assert max(versions) == version


def test_publishers_and_workers_that_are_killed_spoil_no_weights_and_stop_nobody(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with rtcore.Runtime(**PLAYING, out=tmp_path) as runtime:
        store = runtime._supervisor.params
        assert store is not None
        for round_number in range(6):
            publisher = start_publisher(runtime.run_id)
            before = store.newest_version()
            wait_for(lambda before=before: store.newest_version() > before + 20, "publications")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.02))
            # Nearly all of its time it is writing, and theirs, holding a claim.
            publisher.send_signal(signal.SIGKILL)
            publisher.wait()
            if round_number % 2:
                pids = runtime.worker_pids
                victim = round_number % len(pids)
                os.kill(pids[victim], signal.SIGKILL)
                wait_for(
                    lambda victim=victim, old=pids[victim]: runtime.worker_pids.get(victim, old) != old,  # type: ignore[misc]
                    "a new worker",
                )
            version = store.newest_version()
            assert runtime.publish(state(version + 1), wait_s=30) == version + 1, "as if nothing had happened"
        restarted = sum(worker.restarts for worker in runtime.stats().workers)
        wait_for(lambda: len(runtime.worker_pids) == 4, "all workers")
        runtime.stop()
        runtime.wait()
    assert restarted == 3
    assert runtime.summary()["weights"]["torn"] == 0
    assert len(check_each_came_from_one_version(tmp_path)) > 6


def test_a_stopped_worker_keeps_its_buffer_and_the_others_move_on(tmp_path: Path) -> None:
    with rtcore.Runtime(**PLAYING, out=tmp_path, hang_timeout_s=60) as runtime:
        store = runtime._supervisor.params
        assert store is not None
        victim = runtime.worker_pids[2]
        stop(victim)
        for version in range(2, 40):
            assert runtime.publish(state(version), wait_s=30) == version
        os.kill(victim, signal.SIGCONT)
        runtime.stop()
        runtime.wait()
    assert runtime.summary()["weights"]["torn"] == 0
    check_each_came_from_one_version(tmp_path)


def test_all_workers_share_one_copy_of_the_weights() -> None:
    megabytes = 48
    playing = PLAYING | {"policy_args": {"num_parameters": megabytes << 18}}
    with rtcore.Runtime(**playing) as runtime:
        wait_for(lambda: all(worker.inferences for worker in runtime.stats().workers), "answers")
        shared = [_params_pss_mb(pid) for pid in runtime.worker_pids.values()]
        private = [_anonymous_mb(pid) for pid in runtime.worker_pids.values()]
    assert len(shared) == 4
    assert megabytes * 0.9 < sum(shared) < megabytes * 1.1, "together the workers have it once"
    assert max(private) - min(private) < megabytes / 2, "and worker 0, which made it, has no other left"


def _params_pss_mb(pid: int) -> float:
    """Of the parameter store, this process's share."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith("-params") or "-params " in line
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1])
    return total / 1024


def _anonymous_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Anonymous line")


def test_wrong_weights_are_refused_and_the_last_good_ones_play_on(tmp_path: Path) -> None:
    with rtcore.Runtime(**PLAYING, out=tmp_path) as runtime:
        assert runtime.publish(state(2)) == 2
        bad = state(3)
        bad["weights.1"][7] = np.nan
        with pytest.raises(PolicyError, match="'weights.1' has 1 of 65536 values that are not finite"):
            runtime.publish(bad)
        with pytest.raises(PolicyError, match="another network: it lacks 'same'"):
            runtime.publish({key: value for key, value in state(3).items() if key != "same"})
        before = runtime.stats().counters["acted"]
        wait_for(lambda: runtime.stats().counters["acted"] > before + 20, "actions")
        runtime.stop()
        runtime.wait()
    assert check_each_came_from_one_version(tmp_path) <= {1, 2}
    assert runtime.summary()["weights"]["version"] == 2


def test_a_policy_without_a_network_has_no_weights_to_publish() -> None:
    with rtcore.Runtime(env_id="CartPole-v1", policy="random", workers=2, duration=20) as runtime:
        with pytest.raises(PolicyError, match="policy 'random' has no network to publish weights for"):
            runtime.publish({})
        assert "weights" not in runtime.summary()


def test_a_checkpoint_plays_as_version_one_and_a_wrong_one_ends_the_start(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file(state(7), good)
    save_file(state(7, num_parameters=64), bad)
    with rtcore.Runtime(**PLAYING | {"ticks": 200}, out=tmp_path / "run", policy_checkpoint=good) as runtime:
        runtime.wait()
    assert {(version, low, high) for version, low, high, _ in applied(tmp_path / "run")} == {(1, 7.0, 7.0)}
    refused = rtcore.Runtime(**PLAYING, policy_checkpoint=bad)
    with pytest.raises(PolicyError, match=r"bad.safetensors: 'weights.0' has shape \(16,\); expected \(65536,\)"):
        refused.start()
    assert files_of(refused.run_id) == []
