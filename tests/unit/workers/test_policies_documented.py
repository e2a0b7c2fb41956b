"""Each policy in docs/policies.md is loaded as a worker loads it, and acts."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import load_policy

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
NAMES = re.findall(r"# --policy my_module:(\w+)", PAGE)
IMPORTS = """\
from typing import Any
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
try:
    import onnxruntime
except ImportError:
    pass
"""
OBSERVATION, ACTION = spaces.Box(-5, 5, (4,), np.float32), spaces.Discrete(2)
#: Those of a policy that is made for others.
SPACES: dict[str, tuple[spaces.Space[Any], spaces.Space[Any]]] = {
    "Driver": (
        spaces.Dict({"camera": spaces.Box(0, 255, (84, 84), np.uint8), "joints": spaces.Box(-1, 1, (7,), np.float32)}),
        ACTION,
    ),
    "FromOnnx": (OBSERVATION, spaces.Discrete(3)),
}
#: x (1, 4) times [[1, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]], made by onnx.helper 1.20, opset 13.
ONNX = base64.b64decode(
    "CAg6fQoRCgF4CgF3EgFxIgZNYXRNdWwSAXEqOwgECAMQAUIBd0owAACAPwAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAEBAAACA"
    "PwAAgD8AAIA/WhMKAXgSDgoMCAESCAoCCAEKAggEYhMKAXESDgoMCAESCAoCCAEKAggDQgQKABAN"
)


@pytest.fixture
def my_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"my_module_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    (tmp_path / f"{name}.py").write_text(IMPORTS + "\n\n".join(BLOCKS))
    (tmp_path / "net.onnx").write_bytes(ONNX)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return name


def loaded(module: str, name: str, **args: Any) -> tuple[Any, ActionSpec]:
    observation, action = SPACES.get(name, (OBSERVATION, ACTION))
    spec = ActionSpec.from_space(action)
    options: dict[str, Any] = {"seed": 0, "worker_index": 0, "device": "cpu"}
    return load_policy(f"{module}:{name}", args, ObservationSpec.from_space(observation), spec, **options), spec


def test_every_block_is_a_policy_with_its_name():
    assert len(NAMES) == len(BLOCKS) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_of_the_page_acts(name: str, my_module: str):
    if library := {"FromOnnx": "onnxruntime", "with_jax": "jax"}.get(name):
        pytest.importorskip(library)
    policy, spec = loaded(my_module, name, **({"path": "net.onnx"} if name == "FromOnnx" else {}))
    policy.observation[...] = 1
    out = np.full((1,), -1, np.int64)
    policy.act(frame_seq=0, out=out)
    assert 0 <= out[0] < spec.num_choices[0]
    assert policy.timing.abstained == 0


def test_a_network_of_onnx_decides_as_its_weights_say(my_module: str):
    pytest.importorskip("onnxruntime")
    policy, _ = loaded(my_module, "FromOnnx", path="net.onnx")
    out = np.zeros((1,), np.int64)
    for observation, largest in (([5, 1, 1, 0], 0), ([1, 4, 1, 0], 1), ([1, 1, 1, 0], 2)):
        policy.observation[...] = observation
        policy.act(frame_seq=0, out=out)
        assert out[0] == largest


def test_the_function_of_the_page_gives_no_action_near_the_middle(my_module: str):
    policy, _ = loaded(my_module, "hold_still")
    policy.observation[...] = 0.05
    policy.act(frame_seq=0, out=np.zeros((1,), np.int64))
    assert policy.timing.abstained == 1
