"""What acts where chunks overlap: `--on-overlap`."""

import numpy as np
import pytest
from gymnasium import spaces

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, PolicyError
from rtcore.files.trust import refuse_code
from rtcore.loop.overlap import blend_of
from rtcore.spaces import ActionSpec
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit

BOX = ActionSpec.from_space(spaces.Box(-1.0, 1.0, (2,), np.float32))
LEVELS = ActionSpec.from_space(spaces.Box(0, 9, (2,), np.int64))
CHOICE = ActionSpec.from_space(spaces.Discrete(3))


def newest_of(actions):
    return actions[-1]


def twice_the_size(actions):
    return 2 * actions[-1]


def nothing(actions):
    return None


def broken(actions):
    raise ValueError("no weights")


def blended(name, spec, *actions):
    made = blend_of(name, spec)([np.asarray(one, spec.np_dtype).tobytes() for one in actions])
    return np.frombuffer(made, spec.np_dtype).reshape(spec.shape).tolist()


def test_the_mean_of_floats_and_of_whole_numbers():
    assert blended("mean", BOX, [0.0, 1.0], [1.0, 0.5]) == [0.5, 0.75]
    assert blended("mean", LEVELS, [1, 9], [2, 9], [3, 0]) == [2, 6]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_mean_of_floats_is_numpys_to_the_last_bit(dtype):
    spec = ActionSpec.from_space(spaces.Box(-1.0, 1.0, (5,), np.dtype(dtype)))
    actions = np.random.default_rng(0).uniform(-1, 1, (7, 5)).astype(dtype)
    assert blended("mean", spec, *actions) == actions.mean(axis=0).tolist()


def test_a_function_of_ones_own_gets_the_oldest_first_and_stays_within_the_space():
    assert blended(f"{__name__}:newest_of", CHOICE, 0, 2) == 2
    assert blended(f"{__name__}:twice_the_size", BOX, [0, 0], [0.25, 0.75]) == [0.5, 1.0]


def test_the_newest_needs_nothing():
    assert blend_of("newest", CHOICE) is None


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("mean", CHOICE, "have no mean"),
        ("median", BOX, "expected newest, mean"),
        ("no_such_module_here:f", BOX, "No module named"),
        (f"{__name__}:BOX", BOX, "is a ActionSpec"),
    ],
)
def test_what_is_no_way_to_blend_is_refused(name, spec, said):
    with pytest.raises(ConfigError, match=said):
        blend_of(name, spec)


def test_what_is_no_action_is_an_error_that_names_the_function():
    with pytest.raises(PolicyError, match="nothing returned .*None"):
        blended(f"{__name__}:nothing", BOX, [0, 0], [0, 0])


def mean_of(actions):
    return actions.mean(axis=0)


@pytest.mark.parametrize(("name", "given"), [("mean_of", (0, 1)), ("twice_the_size", (0, 2))])
def test_a_choice_is_neither_rounded_nor_clipped(name, given):
    with pytest.raises(PolicyError, match=f"{name} returned .*expected one of Discrete"):
        blended(f"{__name__}:{name}", CHOICE, *given)
    assert blended(f"{__name__}:mean_of", LEVELS, [1, 9], [2, 9], [2, 0]) == [2, 6]


def test_the_function_may_be_named_by_its_file(tmp_path):
    (tmp_path / "blends.py").write_text("def oldest(actions):\n    return actions[0]\n")
    assert blended(f"{tmp_path}/blends.py:oldest", CHOICE, 1, 2) == 1
    (tmp_path / "wrong.py").write_text("def oldest(actions)\n")
    with pytest.raises(ConfigError, match=r"wrong.py:oldest: expected ':'"):
        blend_of(f"{tmp_path}/wrong.py:oldest", CHOICE)


def test_a_function_that_raises_is_an_error_that_names_it():
    with pytest.raises(PolicyError, match="broken raised ValueError: no weights"):
        blended(f"{__name__}:broken", BOX, [0, 0], [0, 0])


@pytest.mark.parametrize("name", ["on_overlap", "operator"])
def test_a_file_does_not_choose_the_function(name: str):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} anyones:code"):
        refuse_code({name: "anyones:code"}, {}, "a recording")
    refuse_code({"on_overlap": "mean"}, {}, "a recording")
    refuse_code({"on_overlap": "my:own"}, {"on_overlap": "my:own"}, "a recording")


def test_a_run_blends_what_its_chunks_have_in_common():
    """Random chunks of 8, replaced every 2 ticks: four overlap, and their mean is half as far from 0 as one of them."""
    spread = {}
    for on_overlap in ("newest", "mean"):
        config = RuntimeConfig(
            env_id="Pendulum-v1", policy="random", clock="virtual", latency="constant:99", fps=20, workers=1, chunk=8,
            replan_every=2, ticks=400, on_overlap=on_overlap,
        )  # fmt: skip
        simulation = Simulation(config)
        found = []
        simulation.run(
            lambda _, ring=simulation.ring, found=found: found.append(ring.read_action(ring.sequence.newest()))
        )
        spread[on_overlap] = float(np.std([np.frombuffer(one, np.float32)[0] for one in found]))
    assert spread["mean"] == pytest.approx(spread["newest"] / 2, rel=0.2)
