"""What a user says arrives: in other processes, in files, and back. What cannot is refused, and the key is named."""

from __future__ import annotations

import enum
import json
import math
import os
import tomllib
from fractions import Fraction
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.config.flags import parse_config, to_toml
from rtcore.config.resolved import resolve
from rtcore.config.run import SETTINGS, RuntimeConfig, load_toml, make_config
from rtcore.errors import ConfigError, RtcoreError
from rtcore.files.values import from_json, plain, to_json
from rtcore.files.values import to_toml as value_to_toml
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Path, st.text())
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(st.integers() | st.text())
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, of the same kinds, a NaN like a NaN."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(VALUES)
def test_any_plain_value_comes_back_from_json_as_it_was(value: Any) -> None:
    text = json.dumps(to_json(plain(value, "x")), allow_nan=False)
    assert same(from_json(json.loads(text)), value)


@given(VALUES)
def test_any_plain_value_comes_back_from_toml_as_it_was(value: Any) -> None:
    try:
        text = value_to_toml(plain(value, "x")).encode().decode()
    except UnicodeEncodeError:
        return  # half a surrogate pair, which TOML cannot hold
    assert same(from_json(tomllib.loads(f"x = {text}")["x"]), value)


def test_numbers_of_numpy_become_pythons_own() -> None:
    args = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": [np.float64("inf")], "e": np.str_("t")}
    config = make_config(env_args=args)
    assert same(config.world.env_args, {"a": 0.5, "b": 3, "c": True, "d": [math.inf], "e": "t"})


@pytest.mark.parametrize("field", ["env_args", "policy_args"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.zeros(3), "speed is a numpy.ndarray"),
        ({"a": [1, len]}, r"speed\['a'\]\[1\] is a builtins.builtin_function_or_method"),
        (dict, "speed is a builtins.type"),
        (np.dtype("f4"), "speed is a numpy.dtypes.Float32DType"),
        (enum.Enum("E", "A").A, "speed is a .*E, which cannot be handed to another process"),
        (10**2000, "speed is a number of 6644 bits"),
    ],
)
def test_what_no_other_process_can_get_is_refused_and_the_key_named(field: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"{field.replace('_', '-')}: {problem}"):
        make_config(**{field: {"speed": value}})


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="nested more than 32 deep"):
        make_config(env_args={"x": loop})


def test_text_that_looks_like_a_number_is_one_only_on_the_command_line(tmp_path: Path) -> None:
    assert make_config(env_args={"version": "1.0"}).world.env_args == {"version": "1.0"}
    (tmp_path / "own.toml").write_text('env-args = { version = "1.0", speed = inf }')
    assert load_toml(tmp_path / "own.toml")["env_args"] == {"version": "1.0", "speed": math.inf}
    config, _ = parse_config(["--env-args", "level=9,speed=inf,loud=no,fast=true,nothing=none"])
    assert config.world.env_args == {"level": 9, "speed": math.inf, "loud": "no", "fast": True, "nothing": None}


def test_a_config_goes_through_json_and_toml_unchanged(tmp_path: Path) -> None:
    config = make_config(
        env_args={
            "range": (0.7, math.inf),
            "where": Path("s"),
            "n": None,
            "smile": "\U0001f600\x7f\n",
            "of": {3: {1, 2}},
        },
        checkpoint_every_s=math.inf,
        hang_timeout_s=math.inf,
        rom=Path("own.gb"),
        out=tmp_path,
        seed=2**63 - 1,
    )
    again = RuntimeConfig.from_jsonable(json.loads(json.dumps(config.to_jsonable(), allow_nan=False)))
    assert again == config
    assert same(again.world.env_args, config.world.env_args)
    (tmp_path / "all.toml").write_text(to_toml(config))
    read, _ = parse_config(["--config", str(tmp_path / "all.toml")])
    assert read == config
    assert same(read.world.env_args, config.world.env_args)


# -- files that are no settings ------------------------------------------------------------------------------------


def test_a_settings_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'out = "\xff"')
    (tmp_path / "deep.toml").write_text("env-args = " + "[" * 50_000)
    (tmp_path / "tag.toml").write_text('env-args = { x = { "$run" = "me" } }')
    (tmp_path / "date.toml").write_text("env-args = { x = 1979-05-27 }")
    (tmp_path / "large.toml").touch()
    os.truncate(tmp_path / "large.toml", 40 << 30)
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("latin.toml", "is not TOML: 'utf-8' codec"),
        ("deep.toml", "is not TOML: nested too deep"),
        ("tag.toml", r"unknown tag '\$run'"),
        ("date.toml", "x is a datetime.date"),
        ("large.toml", "has 42,949,672,960 bytes; expected at most 16,777,216"),
        ("pipe", "is no ordinary file"),
        ("/dev/zero", "is no ordinary file"),
        (".", "no ordinary file|is a folder"),
        ("none.toml", "No such file"),
    ):
        with pytest.raises(ConfigError, match=problem):
            parse_config(["--config", str(tmp_path / name)])


def test_two_settings_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config was given 2 times \(a.toml, b.toml\)"):
        parse_config(["--config", "a.toml", "--config", "b.toml"])


def test_a_run_without_end_ends_when_it_is_told_to() -> None:
    endless, short = (resolve(make_config(duration=seconds), Fraction(60), 1) for seconds in (math.inf, 2.0))
    assert not endless.ends_by_itself
    assert endless.num_ticks * 10**9 // 60 < 1 << 62, "every deadline fits 64 bits"
    assert short.ends_by_itself
    assert short.num_ticks == 120


# -- extreme values -------------------------------------------------------------------------------------------------

EXTREMES = [0, -1, math.inf, math.nan, 1e308, 5e-324, 2**64, 10**400, "", "\0", "9" * 5000]
PLAY = {"env_id": "CartPole-v1", "fps": "50", "policy": "random", "latency": "constant:5", "clock": "virtual"}
LEARN = {"policy": "mlp", "learn": "dqn", "learning_starts": 4, "batch_size": 2, "policy_args": {"hidden": 4}}
LEARNING = ("learn", "mode", "gamma", "n_step", "double_dqn", "publish_every", "explore", "resume", "tensorboard")
NUMERIC = (
    "learn",
    "batch",
    "target",
    "max_grad",
    "updates",
    "epsilon",
    "explore",
    "checkpoint",
    "keep",
    "obs_",
    "act_",
)


@pytest.mark.parametrize("field", list(SETTINGS))
def test_every_setting_works_or_is_refused_by_name_however_extreme(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    learns = field in LEARNING or field.startswith(NUMERIC)
    for value in EXTREMES:
        fields = PLAY | {"workers": 1, "ticks": 12} | (LEARN if learns else {}) | {field: value}
        if field == "stagger":
            fields.pop("workers")
        try:
            config = make_config(**fields)
            simulation = Simulation(config)
        except RtcoreError as error:
            assert {field, field.replace("_", "-"), field.replace("_", " ")} & {
                word for word in (field, field.replace("_", "-"), field.replace("_", " ")) if word in str(error)
            }, f"{field}={value!r}: {error}"
            continue
        try:
            simulation.run(lambda tick: tick >= 12)
        finally:
            simulation.close()
        assert simulation.stats().counters["ticks"] > 0


def test_ctrl_c_while_settings_are_written_down_is_ctrl_c() -> None:
    """Seed 18227 of `rtcore-torture real`: pydantic makes an error of its own of what is raised meanwhile."""

    class Interrupted(PosixPath):
        def __fspath__(self) -> str:
            raise KeyboardInterrupt

        __str__ = __fspath__

    config = make_config(env_id="CartPole-v1", policy="random").replace(out=Interrupted("x"))
    with pytest.raises(KeyboardInterrupt):
        config.to_jsonable()
