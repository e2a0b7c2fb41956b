"""Stable-Baselines3's models on a run: what they see, how they act and explore, what they learn from, saved ones."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rtcore.config.run import make_config
from rtcore.errors import ConfigError, PolicyConfigError
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import build_network, check_named, load_policy
from rtcore_workers.policies.probing import space_notes
from rtcore_workers.policies.sb3 import ModelPolicy, ModelView

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.policies import ActorCriticPolicy

import rtcore.sb3

pytestmark = pytest.mark.unit

SEEN = spaces.Box(-1, 1, (3,))
FORCES = spaces.Box(np.float32([-2, 0]), np.float32([4, 1]))
CHOICES = spaces.Discrete(3, start=5)


class Nowhere(gymnasium.Env[Any, Any]):
    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action


def model_of(algorithm: Any, action: spaces.Space[Any], observation: spaces.Space[Any] = SEEN, **arguments: Any) -> Any:
    few = {"n_steps": 8} if algorithm in (PPO, A2C) else {"buffer_size": 1}
    few |= {"batch_size": 8} if algorithm is PPO else {}
    kind = arguments.pop("policy", "MlpPolicy")
    return algorithm(kind, Nowhere(observation, action), device="cpu", seed=0, **few, **arguments)


def frames(number: int, space: spaces.Space[Any] = SEEN) -> torch.Tensor:
    return torch.as_tensor(np.stack([space.sample() for _ in range(number)]))


# -- seeing and acting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [SAC, TD3, PPO, A2C])
def test_a_model_that_does_not_explore_acts_as_its_own_predict_does_within_the_worlds_bounds(algorithm: Any) -> None:
    model = model_of(algorithm, FORCES)
    policy = ModelPolicy(model, ModelView(SEEN, FORCES))
    seen = frames(20)
    expected, _ = model.predict(seen.numpy(), deterministic=True)
    with torch.no_grad():
        given = policy(seen).numpy().clip(FORCES.low, FORCES.high)  # as rtcore clips what a policy returns
    assert given == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("algorithm", [DQN, PPO])
def test_a_choice_is_the_one_that_its_own_predict_makes(algorithm: Any) -> None:
    choices = spaces.Discrete(3)
    model = model_of(algorithm, choices)
    policy, action = ModelPolicy(model, ModelView(SEEN, choices)), ActionSpec.from_space(choices)
    for seen in frames(20):
        with torch.no_grad():
            (chosen,) = action.from_policy_output(policy(seen[None]).numpy())
        assert chosen == model.predict(seen.numpy(), deterministic=True)[0]


def test_exploration_travels_as_buffers_and_stays_within_the_bounds() -> None:
    torch.manual_seed(0)
    policy = ModelPolicy(model_of(SAC, FORCES), ModelView(SEEN, FORCES))
    seen = frames(1).repeat(2000, 1)
    with torch.no_grad():
        mean = policy(seen)
        assert mean.std(dim=0).max() < 1e-5
        policy.load_state_dict(policy.state_dict() | {"spread": torch.ones(())})
        own = policy(seen)
        # A fresh actor's own deviation is near 1 before it is squashed.
        assert (own.std(dim=0) > torch.tensor([1.0, 0.15])).all()
        assert ((own >= policy.view.low) & (own <= policy.view.high)).all()
        policy.load_state_dict(policy.state_dict() | {"spread": torch.zeros(()), "random_share": torch.ones(())})
        drawn = torch.cat([policy(seen[:1]) for _ in range(300)])
    assert drawn.mean(dim=0) == pytest.approx([1, 0.5], abs=0.4)
    assert drawn[:, 0].min() < -1.8
    assert drawn[:, 0].max() > 3.8


def test_noise_is_in_units_of_the_models_own_range() -> None:
    torch.manual_seed(0)
    policy = ModelPolicy(model_of(TD3, FORCES), ModelView(SEEN, FORCES))
    seen = frames(1).repeat(4000, 1)
    with torch.no_grad():
        policy.noise.copy_(torch.tensor([0.1, 0.2]))
        given = policy(seen)
    assert given.std(dim=0).numpy() == pytest.approx([0.1 * 3, 0.2 * 0.5], rel=0.1)


def test_dqn_draws_choices_at_the_share_that_its_schedule_says() -> None:
    torch.manual_seed(0)
    policy = ModelPolicy(model_of(DQN, spaces.Discrete(3)), ModelView(SEEN, spaces.Discrete(3)))
    seen = frames(1)
    with torch.no_grad():
        greedy = int(policy(seen).argmax())
        policy.random_share.fill_(0.6)
        others = sum(int(policy(seen).argmax()) != greedy for _ in range(1000))
    assert others / 1000 == pytest.approx(0.6 * 2 / 3, abs=0.06)


def test_past_actions_are_a_part_of_what_a_model_sees_in_its_own_units() -> None:
    view = ModelView(spaces.Box(-1, 1, (2, 3)), FORCES, act_history=2)
    assert view.observation_space["past_actions"] == spaces.Box(-1, 1, (2, 2))
    seen = view(torch.zeros(1, 2, 3), torch.tensor([[[-2.0, 1.0], [1.0, 0.5]]]))
    assert seen["observation"].shape == (1, 2, 3)
    assert seen["past_actions"].tolist() == [[[-1.0, 1.0], [0.0, 0.0]]]
    view = ModelView(SEEN, CHOICES, act_history=2)
    assert view(torch.zeros(1, 3), torch.tensor([[5, 7]]))["past_actions"].tolist() == [[0, 2]]
    model = model_of(DQN, spaces.Discrete(3), view.observation_space, policy="MultiInputPolicy")
    assert ModelPolicy(model, view)(torch.zeros(1, 3), torch.tensor([[5, 7]])).shape == (1, 3)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [((36, 40), (1, 36, 40)), ((36, 40, 3), (3, 36, 40)), ((3, 36, 40), (3, 36, 40)), ((2, 36, 40, 3), (6, 36, 40))],
)
def test_images_have_their_channels_first_and_a_stack_is_more_of_them(shape: Any, seen: Any) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    view = ModelView(space, CHOICES)
    assert view.observation_space == spaces.Box(0, 255, seen, np.uint8)
    frame = space.sample()
    batch = view(torch.as_tensor(frame)[None])
    assert batch.shape == (1, *seen)
    last = frame[..., -1] if shape[-1] == 3 else frame
    assert (batch[0, -1].numpy() == (last[-1] if last.ndim == 3 else last)).all()
    assert ModelPolicy(model_of(DQN, spaces.Discrete(3), view.observation_space, policy="CnnPolicy"), view)


# -- learning ------------------------------------------------------------------------------------------------------


def ring_with(ticks: int, action: ActionSpec, raw: bytes, delay: int = 2) -> FrameRing:
    ring = FrameRing.private(ObservationSpec.from_space(SEEN), action.nbytes, 64)
    zeros = dict.fromkeys(FrameHeader._fields, 0)
    for tick in range(ticks):
        kind = TickKind.RESET if tick == 0 else TickKind.LEAD_IN if tick <= delay else TickKind.ACTED
        fields = {"frame_seq": tick, "tick": tick, "kind": kind, "obs_tick": tick - delay, "due_tick": tick}
        ring.publish(np.full(3, tick, np.float32), FrameHeader(**(zeros | fields | {"reward": float(tick)})), raw)
    return ring


@pytest.mark.parametrize(
    ("algorithm", "space", "applied", "stored"),
    [
        (SAC, FORCES, np.float32([1, 1]), [0.0, 1.0]),
        (TD3, FORCES, np.float32([-2, 0.5]), [-1.0, 0.0]),
        (DQN, CHOICES, np.int64(7), [2]),
    ],
)
def test_the_replay_memory_is_the_ring_in_the_models_units_and_the_algorithm_learns_from_it(
    algorithm: Any, space: Any, applied: Any, stored: Any
) -> None:
    spec = ActionSpec.from_space(space)
    ring = ring_with(30, spec, np.asarray(applied, spec.np_dtype).tobytes())
    arguments = {"gamma": 0.5, "learning_starts": 0, "n_steps": 2, "policy_kwargs": {"net_arch": [8]}}
    policy = rtcore.sb3.policy(algorithm, "MlpPolicy", SEEN, space, **arguments)
    assert policy.make_model is not None
    model = policy.make_model(seed=1)
    model.replay_buffer.attach(TransitionReader(ring, spec, 0, TransitionBuilder(0.5)), policy.view, 0)
    model.replay_buffer._reader.update()
    rows = model.replay_buffer.sample(64)
    assert rows.actions.tolist() == [stored] * 64
    first = rows.observations[:, 0]
    # The decision that saw frame k is applied at k + 2, and the next one saw k + 1.
    assert (rows.next_observations[:, 0] - first).unique().tolist() == [1.0, 2.0], "the newest row has one decision"
    chained = (rows.next_observations[:, 0] - first) == 2
    assert rows.rewards[chained, 0].tolist() == (first + 2 + 0.5 * (first + 3))[chained].tolist()
    assert rows.discounts[chained].unique().tolist() == [0.25]
    before = [parameter.clone() for parameter in policy.make_model(seed=1).policy.parameters()]
    model._setup_learn(1)
    model.train(gradient_steps=3, batch_size=16)
    pairs = zip(before, model.policy.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("algorithm", "arguments", "said"),
    [
        (PPO, {}, "expected an off-policy algorithm"),
        (SAC, {"buffer_size": 10}, "buffer_size has no meaning here.*ring_slots"),
        (SAC, {"use_sde": True}, "use_sde keeps one noise for many steps"),
        (TD3, {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))}, "expected NormalActionNoise"),
        (TD3, {"action_noise": NormalActionNoise(np.ones(2), np.ones(2))}, "mean.*expected 0"),
        (SAC, {"act_history": 2}, 'expected "MultiInputPolicy"'),
    ],
)
def test_what_would_be_wrong_without_a_word_is_refused(algorithm: Any, arguments: Any, said: str) -> None:
    with pytest.raises(PolicyConfigError, match=said):
        rtcore.sb3.policy(algorithm, "MlpPolicy", SEEN, FORCES, **arguments)


# -- saved models --------------------------------------------------------------------------------------------------


def play(file: Path, observation: spaces.Space[Any], action: spaces.Space[Any], **arguments: Any) -> Any:
    history = History(0, arguments.pop("act_history", 0))
    specs = ObservationSpec.from_space(observation), ActionSpec.from_space(action)
    return build_network(f"sb3:{file}", arguments, *specs, seed=0, history=history)


@pytest.mark.parametrize(
    ("algorithm", "action", "arguments"),
    [
        (SAC, FORCES, {"policy_kwargs": {"net_arch": [16, 8], "activation_fn": torch.nn.Tanh}}),
        (SAC, FORCES, {"use_sde": True}),
        (TD3, FORCES, {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [16]}}}),
        (DQN, spaces.Discrete(3), {"policy_kwargs": {"net_arch": [8]}}),
        (PPO, spaces.Discrete(3), {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [16, 4]}}}),
        (A2C, FORCES, {"use_sde": True}),
    ],
    ids=["SAC", "SAC gSDE", "TD3", "DQN", "PPO", "A2C gSDE"],
)
def test_a_saved_model_plays_as_it_did(algorithm: Any, action: Any, arguments: Any, tmp_path: Path) -> None:
    model = model_of(algorithm, action, **arguments)
    model.save(tmp_path / "model.zip")
    policy = play(tmp_path / "model.zip", SEEN, action)
    seen = frames(10)
    with torch.no_grad():
        assert torch.equal(policy(seen), ModelPolicy(model, ModelView(SEEN, action))(seen))


def test_a_saved_model_that_saw_images_or_past_actions_plays_too(tmp_path: Path) -> None:
    image = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    for act_history, kind in ((0, "CnnPolicy"), (2, "MultiInputPolicy")):
        view = ModelView(image, CHOICES, act_history)
        model = model_of(DQN, spaces.Discrete(3), view.observation_space, policy=kind)
        model.save(tmp_path / "model.zip")
        policy = play(tmp_path / "model.zip", image, CHOICES, act_history=act_history)
        past = torch.tensor([[5, 7]]) if act_history else None
        frame = frames(1, image)
        with torch.no_grad():
            assert torch.equal(policy(frame, past), ModelPolicy(model, view)(frame, past))


class Reached:
    """What a pickle of it does when it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["REACHED"],)


def test_nothing_that_a_file_says_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACHED", str(tmp_path / "reached"))
    code = base64.b64encode(pickle.dumps(Reached())).decode()
    model_of(SAC, FORCES).save(tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as good:
        content = {name: good.read(name) for name in good.namelist()}
    plain = json.loads(content["data"])
    for value in plain.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = code

    def write(name: str, **files: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file, raw in (content | files).items():
                archive.writestr(file, raw)
        return tmp_path / name

    assert play(write("data.zip", data=json.dumps(plain).encode()), SEEN, FORCES)
    with pytest.raises(PolicyConfigError, match="cannot be read"):
        play(write("weights.zip", **{"policy.pth": pickle.dumps(Reached(), protocol=2)}), SEEN, FORCES)
    for changed, said in (
        ({"policy_class": {"__module__": "os"}}, "policy is of os"),
        ({"policy_kwargs": {"activation_fn": "<class 'os.system'>"}}, "activation_fn is <class 'os.system'>"),
        ({"policy_kwargs": {"features_extractor_class": "<class 'my.Net'>"}}, "features_extractor_class is <class 'my"),
    ):
        with pytest.raises(PolicyConfigError, match=f"{said}.*a file does not choose what runs here.*rtcore.sb3.load"):
            play(write("code.zip", data=json.dumps(plain | changed).encode()), SEEN, FORCES)
    assert not (tmp_path / "reached").exists()


class OwnPolicy(ActorCriticPolicy):
    """Of a user's own module, of SB3's layers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": [8, 4], "activation_fn": torch.nn.ELU})


class OwnLayer(torch.nn.ReLU):
    """Of a user's own module."""


class OwnLayers(ActorCriticPolicy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "activation_fn": OwnLayer})


def test_a_model_of_ones_own_class_is_written_anew_as_data_and_one_of_own_layers_is_not(tmp_path: Path) -> None:
    for kind in (OwnPolicy, OwnLayers):
        model = model_of(PPO, FORCES, policy=kind)
        model.save(tmp_path / f"{kind.__name__}.zip")
    rtcore.sb3.convert(PPO, tmp_path / "OwnPolicy.zip", tmp_path / "data.zip")
    seen = frames(3)
    model = PPO.load(tmp_path / "OwnPolicy.zip", device="cpu")
    with torch.no_grad():
        converted = play(tmp_path / "data.zip", SEEN, FORCES)(seen)
        assert torch.equal(converted, ModelPolicy(model, ModelView(SEEN, FORCES))(seen))
    with pytest.raises(PolicyConfigError, match="actions whose high is"):
        play(tmp_path / "data.zip", SEEN, spaces.Box(np.float32([-2, 0]), np.float32([9, 1])))
    with pytest.raises(PolicyConfigError, match="activation_fn is .*OwnLayer"):
        rtcore.sb3.convert(PPO, tmp_path / "OwnLayers.zip", tmp_path / "none.zip")
    assert not (tmp_path / "none.zip").exists()


def test_a_model_with_code_of_ones_own_is_loaded_by_a_factory_of_ones_own(tmp_path: Path) -> None:
    model = PPO(OwnPolicy, Nowhere(SEEN, FORCES), n_steps=8, batch_size=8, device="cpu")
    model.save(tmp_path / "own.zip")
    with pytest.raises(PolicyConfigError, match="not one of Stable-Baselines3's own.*your own"):
        play(tmp_path / "own.zip", SEEN, FORCES)
    policy = rtcore.sb3.load(PPO, str(tmp_path / "own.zip"), SEEN, FORCES)
    seen = frames(3)
    with torch.no_grad():
        assert torch.equal(policy(seen), ModelPolicy(model, ModelView(SEEN, FORCES))(seen))
    with pytest.raises(PolicyConfigError, match="saw Box.*here it would see"):
        rtcore.sb3.load(PPO, str(tmp_path / "own.zip"), spaces.Box(-1, 1, (4,)), FORCES)


def test_a_file_that_is_none_or_of_another_world_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PolicyConfigError, match="there is no file"):
        check_named(f"sb3:{tmp_path}/none.zip", {})
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(PolicyConfigError, match="cannot be read: File is not a zip file"):
        play(tmp_path / "text.zip", SEEN, FORCES)
    model_of(SAC, FORCES).save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", "{}" + " " * 1000)
        archive.writestr("policy.pth", b"")
    damaged = bytearray((tmp_path / "damaged.zip").read_bytes())
    damaged[damaged.find(b"data") + 4] = 7  # no kind of block that there is
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(PolicyConfigError, match="cannot be read: Error -3 while decompressing"):
        play(tmp_path / "damaged.zip", SEEN, FORCES)
    with zipfile.ZipFile(tmp_path / "model.zip") as good, zipfile.ZipFile(tmp_path / "huge.zip", "w") as huge:
        plain = json.loads(good.read("data"))
        huge.writestr("data", json.dumps(plain | {"policy_kwargs": {"net_arch": [1_000_000, 1_000_000]}}))
        huge.writestr("policy.pth", good.read("policy.pth"))
    with pytest.raises(PolicyConfigError, match="layers of up to 1,000,000 units, and has .* tensors"):
        play(tmp_path / "huge.zip", SEEN, FORCES)
    with pytest.raises(PolicyConfigError, match="(?s)does not fit this world.*--obs-history"):
        play(tmp_path / "model.zip", spaces.Box(-1, 1, (4,)), FORCES)
    other = spaces.Box(np.float32([-2, 0]), np.float32([8, 1]))
    with pytest.raises(PolicyConfigError, match=r"actions whose high is \[4.0, 1.0\].*act with other forces"):
        play(tmp_path / "model.zip", SEEN, other)


def test_a_saved_model_says_where_it_saw_other_numbers_than_the_world_shows(tmp_path: Path) -> None:
    model_of(SAC, FORCES).save(tmp_path / "model.zip")
    action = ActionSpec.from_space(FORCES)
    assert space_notes(play(tmp_path / "model.zip", SEEN, FORCES), ObservationSpec.from_space(SEEN), action) == []
    wider = spaces.Box(2 * SEEN.low, 2 * SEEN.high)
    (note,) = space_notes(play(tmp_path / "model.zip", wider, FORCES), ObservationSpec.from_space(wider), action)
    assert note.startswith("WARNING: the policy's observation_space is Box(")


def test_what_a_saved_model_has_not_is_refused(tmp_path: Path) -> None:
    choices = spaces.Discrete(3)
    model_of(PPO, choices).save(tmp_path / "ppo.zip")
    model_of(SAC, FORCES).save(tmp_path / "sac.zip")
    with pytest.raises(PolicyConfigError, match="got spread=1, and only SAC's actions are drawn so"):
        play(tmp_path / "ppo.zip", SEEN, choices, spread=1)
    with pytest.raises(PolicyConfigError, match="got spread='yes'; expected a number of 0 or more"):
        play(tmp_path / "sac.zip", SEEN, FORCES, spread="yes")
    specs = ObservationSpec.from_space(SEEN), ActionSpec.from_space(choices)
    with pytest.raises(PolicyConfigError, match="chunk=3: policy .* gives one action at a time; give --chunk-rest"):
        load_policy(f"sb3:{tmp_path}/ppo.zip", {}, *specs, seed=0, worker_index=0, device="cpu", chunk=3)
    with pytest.raises(ConfigError, match="learns with rtcore.sb3.learn"):
        make_config(policy="sb3:ppo.zip", learn="dqn")


def test_it_is_named_beside_the_built_in_policies() -> None:
    with pytest.raises(ConfigError, match="sb3:FILE.zip for a model that Stable-Baselines3 saved"):
        check_named("nonsuch", {})
