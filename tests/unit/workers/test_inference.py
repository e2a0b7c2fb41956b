"""One inference after another of a worker, in this process."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtcore.config.resolved import resolve
from rtcore.config.run import RuntimeConfig
from rtcore.errors import PolicyError
from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.segments import new_run_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.scheduling.jobs import Job
from rtcore.spaces import ActionSpec, ObservationCheck, ObservationSpec, PolicyNeeds
from rtcore_workers.inference import Worker
from rtcore_workers.policies.base import InferenceTiming

pytestmark = pytest.mark.unit
OBSERVATION = ObservationSpec((2,), "float32", (-1,), (1,))
ACTION = ActionSpec.from_json({"kind": "box", "shape": [2], "dtype": "float32", "low": [-1], "high": [1]})
LAYOUT = Layout(max_workers=1, ring_slots=8, log_slots=4, frame_bytes=8, action_bytes=ACTION.nbytes, chunk=1)


class RaisesOnce:
    """As an executor on a GPU, it does not say that it gave an action: only who gave none says so."""

    def __init__(self) -> None:
        self.observation, self.past_actions = np.zeros(2, np.float32), None
        self.context = self.payload = None
        self.needs, self.timing = PolicyNeeds(), InferenceTiming()
        self.info = SimpleNamespace(device="cpu")

    def act(self, *, frame_seq: int, out: Any, tick: int | None = None) -> None:
        if frame_seq == 1:
            raise ConnectionError("the server does not answer")
        out[...] = frame_seq


def test_an_inference_that_raised_is_one_that_gave_no_action_and_the_next_one_gives_one() -> None:
    config = RuntimeConfig(env_id="rtcore/Synthetic-v0", on_policy_error="miss", workers=1)
    run_id = new_run_id()
    try:
        shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
        parts = {"shared": shared, "waiting": None, "policy": RaisesOnce(), "action": ACTION}
        worker = Worker(resolve(config, Fraction(50), OBSERVATION.nbytes), 0, generation=1, **parts)
        worker.watch = ObservationCheck(OBSERVATION, SimpleNamespace(now_ns=lambda: 0), print, print)
        with pytest.raises(PolicyError, match="the server does not answer in its warm-up, .*the 3 calls before tick 0"):
            worker.warm_up(3, at_least=3)
        abstained = []
        for seq in range(4):
            header = FrameHeader(frame_seq=seq, tick=seq)
            shared.ring.publish(np.zeros(2, np.float32), header, bytes(ACTION.nbytes))
            worker._answer(Job(0, seq, seq + 1, True), header, 0)
            answer = shared.slots.read(0, seq + 1)
            abstained.append(answer.abstained)
        assert abstained == [0, 1, 0, 0]
        assert shared.worker_status[0]["policy_errors"] == 1
        shared.close()
    finally:
        unlink_all(run_id)
