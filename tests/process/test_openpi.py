"""A policy server of OpenPI's protocol is a worker's policy: the server is small, and real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from gymnasium import spaces
from websockets.sync.server import ServerConnection, serve

import rtcore
from rtcore.errors import ConfigError, LinkLost, PolicyConfigError, PolicyError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import load_policy
from rtcore_workers.policies.openpi import packed, unpacked
from tests.support.drills import wait_for

pytestmark = pytest.mark.process

ARM = ActionSpec.from_space(spaces.Box(-1.0, 1.0, (3,), np.float32))
IMAGE = spaces.Box(0, 255, (4, 5, 3), np.uint8)
SEES = ObservationSpec.from_space(
    spaces.Dict({"observation": spaces.Dict({"image": IMAGE, "state": spaces.Box(-9.0, 9.0, (2,), np.float32)})})
)
Answer = Callable[[dict[str, Any]], Any]


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, default=packed))


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server that answers each observation so; a str is sent as it is, which means an error."""

    def talk(connection: ServerConnection) -> None:
        connection.send(pack({"robot": "made up"}))
        for message in connection:
            said = answer(msgpack.unpackb(message, object_hook=unpacked))
            connection.send(said if isinstance(said, (str, bytes)) else pack(said))

    with serve(talk, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"openpi:ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def policy_at(name: str, observation: ObservationSpec = SEES, chunk: int = 2, **args: Any) -> Any:
    return load_policy(name, args, observation, ARM, seed=0, worker_index=0, device="cpu", chunk=chunk)


def test_names_arrays_and_prompt_arrive_and_the_first_actions_of_the_chunk_are_taken() -> None:
    got: list[dict[str, Any]] = []
    chunk = np.linspace(-2, 1, 30).reshape(10, 3)

    def answer(seen: dict[str, Any]) -> Any:
        got.append(seen)
        return {"actions": chunk, "server_timing": {"infer_ms": 1.0}}

    with serving(answer) as name:
        policy = policy_at(name, prompt="pick up the block")
        assert "robot=made up" in policy.info.notes[0]
        assert policy.info.device == name.removeprefix("openpi:")
        policy.observation[...] = np.arange(policy.observation.size) % 200
        out = np.zeros((2, 3), np.float32)
        policy.act(frame_seq=0, out=out)
    (seen,) = got
    assert set(seen) == {"observation/image", "observation/state", "prompt"}
    assert seen["prompt"] == "pick up the block"
    assert (seen["observation/image"].shape, seen["observation/image"].dtype) == ((4, 5, 3), np.uint8)
    np.testing.assert_array_equal(seen["observation/image"], SEES.unpack(policy.observation)["observation/image"])
    np.testing.assert_allclose(out, np.clip(chunk[:2], -1, 1).astype(np.float32))
    assert policy.timing.clipped == 2
    assert policy.timing.compute_ns > 0


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Traceback: out of memory", "out of memory"),
        ({"action": np.zeros((2, 3))}, r"no numbers as 'actions'; it gave \['action'\]"),
        ({"actions": np.zeros((1, 3))}, "gave 1 actions; expected 2 or more: give --chunk 1"),
        ({"actions": np.zeros((9, 4))}, "shape"),
        ({"actions": np.full((9, 3), np.nan)}, "NaN"),
        (b"\xc1", "no msgpack"),
        (pack([1, 2]), "expected a map"),
        (msgpack.packb({"actions": {b"__ndarray__": True, b"dtype": "O", b"shape": [1], b"data": b"x"}}), "of object"),
        (msgpack.packb({"actions": {b"__ndarray__": True, b"dtype": "<f4", b"shape": [9], b"data": b"x"}}), "1 bytes"),
    ],
)
def test_what_a_server_does_wrong_is_said(said: Any, problem: str) -> None:
    with serving(lambda seen: said) as name, pytest.raises(PolicyError, match=problem):
        policy_at(name).act(frame_seq=0, out=np.zeros((2, 3), np.float32))


def test_a_server_that_has_gone_is_a_lost_link() -> None:
    with serving(lambda seen: {"actions": np.zeros((2, 3))}) as name:
        policy = policy_at(name)
    with pytest.raises(LinkLost, match="has gone"):
        policy.act(frame_seq=0, out=np.zeros((2, 3), np.float32))


def test_an_address_or_argument_that_is_none_is_refused() -> None:
    with pytest.raises(PolicyConfigError, match="expected openpi:ws://HOST:PORT"):
        policy_at("openpi:host:8000")
    with pytest.raises(PolicyConfigError, match="promt.*did you mean 'prompt'"):
        policy_at("openpi:ws://127.0.0.1:1", promt="x")


def test_a_run_plays_what_a_server_says_and_the_server_is_told_the_task() -> None:
    told: list[Any] = []

    def answer(seen: dict[str, Any]) -> Any:
        told.append((seen["prompt"], seen["speed"].tolist()))
        return {"actions": np.ones(8, np.int64)}

    with serving(answer) as name:
        settings = {"env_id": "CartPole-v1", "policy": name, "workers": 2, "chunk": 8, "duration": 600}
        with rtcore.Runtime(**settings, task={"prompt": "wait", "speed": 0.5}) as runtime:
            assert runtime.stats().task["version"] == 1
            assert runtime.set_task({"prompt": "pick up the block", "speed": 1}) == 2
            assert runtime.stats().task == {"version": 2, "values": {"prompt": "pick up the block", "speed": 1.0}}
            wait_for(lambda: told[-1] == ("pick up the block", 1.0), "the server to be told")
            wait_for(lambda: runtime.stats().counters["acted"] > 20, "actions")
            with pytest.raises(ConfigError, match="speed missing"):
                runtime.set_task({"prompt": "wait"})
            devices = {worker.device for worker in runtime.stats().workers}
            runtime.stop()
            runtime.wait()
        summary = runtime.summary()
    assert told[0] == ("wait", 0.5), "in the warm-up"
    assert summary["actions"]["acted_fraction"] > 0
    assert devices == {name.removeprefix("openpi:")}
