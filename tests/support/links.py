"""What a run says to a worker elsewhere, for tests that are one side of a link."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium import spaces

from rtcore.config.run import make_config
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.remote.near import SENT_SETTINGS

VERSION = version("rtcore")
OBSERVATION = ObservationSpec.from_space(spaces.Box(0, 255, (3, 2), np.uint8))
ACTION = ActionSpec.from_space(spaces.Discrete(4))


def setup_of(**given: Any) -> dict[str, Any]:
    config = make_config(**({"policy": "random", "seed": 5} | given))
    plain = config.to_jsonable()
    return {
        "settings": {name: plain[name] for name in SENT_SETTINGS},
        "observation": OBSERVATION.to_json(),
        "action": ACTION.to_json(),
    }


def hello_of(run: str = "run-a", worker: int = 0, version: str = VERSION) -> dict[str, Any]:
    return {"rtcore": version, "run_id": run, "worker": worker, "host": "robot"}
