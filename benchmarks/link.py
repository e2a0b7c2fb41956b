"""What a proxy adds to an inference: the same policy asked here and over loopback, in turns.

    python -m benchmarks.link                      # 500 pairs with frames of 23 KB
    python -m benchmarks.link --policy impala      # with a network

Prints percentiles of both and of the differences of the pairs, and how busy the machine was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rtcore.clock import MonotonicClock
from rtcore.config.run import make_config
from rtcore.host.addresses import Address
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import ParamStore
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import policy_of
from rtcore_workers.remote.near import Place, RemotePolicy

#: A Game Boy's screen.
OBSERVATION = ObservationSpec.from_space(spaces.Box(0, 255, (144, 160), np.uint8))
ACTION = ActionSpec.from_space(spaces.Discrete(8))


class OwnStore:
    """Weights of this process, in the place of a run's."""

    is_first = True

    def make(self, manifest: ParamManifest | None) -> ParamStore:
        assert manifest is not None
        return ParamStore.private(manifest)

    def initial(self, manifest: ParamManifest) -> Mapping[str, Any]:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="random")
    parser.add_argument("--pairs", type=int, default=500)
    options = parser.parse_args()
    command = [sys.executable, "-m", "rtcore.cli.worker", "--listen", "127.0.0.1:0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as far:
        try:
            assert far.stdout is not None
            address = Address.parse(far.stdout.readline().split("listening at ")[1].split(",")[0])
            measure(options.policy, options.pairs, address)
        finally:
            far.kill()


def measure(policy: str, pairs: int, address: Address) -> None:
    """Ask both in turns, and print."""
    config = make_config(policy=policy)
    place = Place("benchmark", 0, 1, address, None, 1.0, in_run=False)
    remote = RemotePolicy(place, config, OBSERVATION, ACTION, store=OwnStore(), waits=lambda why: None)
    local = policy_of(config, OBSERVATION, ACTION, worker_index=0, device="cpu")
    clock, rng, out = MonotonicClock(), np.random.default_rng(0), np.zeros(1, ACTION.np_dtype)
    taken: list[tuple[int, int]] = []
    for number in range(pairs):
        frame = rng.integers(0, 256, OBSERVATION.shape, np.uint8)
        times, order = [0, 0], (local, remote) if number % 2 else (remote, local)
        for each in order:
            each.observation[...] = frame
            # As in a run, where a worker has slept before its job.
            clock.sleep_until_ns(clock.now_ns() + 2_000_000)
            begun_ns = clock.now_ns()
            each.act(frame_seq=number, out=out)
            times[each is remote] = clock.now_ns() - begun_ns
        taken.append((times[0], times[1]))
    here, there = np.array(taken).T / 1e6
    print(f"{policy}, {OBSERVATION.nbytes} bytes a frame, {pairs} pairs, load {os.getloadavg()[0]:.1f}")
    for name, times_ms in (("here", here), ("over loopback", there), ("difference of a pair", there - here)):
        p50, p90, p99 = np.percentile(times_ms, [50, 90, 99])
        print(f"{name:22} p50 {p50:7.3f}  p90 {p90:7.3f}  p99 {p99:7.3f} ms")


if __name__ == "__main__":
    main()
