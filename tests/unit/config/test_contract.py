"""What may be required of a run, and how it is said: on the command line, in a file, in Python."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from rtcore.config.contract import KEYS, Condition, short_name, short_names
from rtcore.config.flags import parse_command, to_toml
from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "path", "sign", "bound"),
    [
        ("acted>=0.999", "actions.acted_fraction", ">=", "999/1000"),
        ("acted >= 99.9%", "actions.acted_fraction", ">=", "999/1000"),
        ("acted_fraction>0", "actions.acted_fraction", ">", "0"),
        ("Lateness-P999-us<=50", "ticks.lateness_us.p999", "<=", "50"),
        ("ticks.lateness_us.p99<1.5e2", "ticks.lateness_us.p99", "<", "150"),
        ("lateness_us.max<=1_000", "ticks.lateness_us.max", "<=", "1000"),
        ("missed==0", "ticks.kinds.missed", "==", "0"),
        ("publish_to_read_max_us<=.5", "ipc_us.publish_to_read.max", "<=", "1/2"),
        ("points>=-3", "episodes.points", ">=", "-3"),
        ("restarts<=0", "restarts", "<=", "0"),
    ],
)
def test_a_condition_names_a_number_of_the_summary_by_its_path_a_short_name_or_the_end_of_its_path(
    text: str, path: str, sign: str, bound: str
) -> None:
    condition = Condition.parse(text)
    assert (condition.path, condition.sign, condition.bound) == (path, sign, Fraction(bound))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("actd>=0.9", "Did you mean 'acted'?"),
        ("lateness_p99<=50", "Did you mean 'lateness_p99_us'"),
        ("speed>=3", "There are acted, "),
        ("missed=0", "expected KEY>=NUMBER"),
        ("missed", "expected KEY>=NUMBER"),
        ("acted>=99.9", "expected 0 to 1, or 0% to 100%"),
        ("missed<=3%", "missed is no share"),
        ("acted>=high", "expected KEY>=NUMBER"),
        ("head_inferences<=1;x", "expected KEY>=NUMBER"),
        ("learner_updates>=1", "give --learn dqn too"),
    ],
)
def test_what_is_no_condition_is_refused_before_anything_starts_with_what_is_right(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match="require") as refused:
        parse_command(["--require", text])
    assert words in str(refused.value)


def test_no_two_numbers_have_the_same_short_name_and_none_is_the_path_of_another() -> None:
    assert len(short_names()) == len(KEYS)
    assert all(KEYS.get(name) is None or path == name for name, path in short_names().items())
    assert {short_name(path) for path in KEYS} == set(short_names())


def test_conditions_are_said_by_flags_or_as_a_table_of_a_file_and_read_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'ticks = 5\n[require]\nacted = ">=0.999"\nlateness-p99-us = "<=40"\nticks.world_step_us.max = "<2e3"\n'
        'delay_p50_ticks = [">=1", "<= 3"]\n'
    )
    config = parse_command(["--config", str(file)]).config
    expected = ("acted>=0.999", "lateness_p99_us<=40", "ticks.world_step_us.max<2e3", "delay_p50_ticks>=1")
    assert config.contract.require == (*expected, "delay_p50_ticks<=3")
    printed = tmp_path / "printed.toml"
    printed.write_text(to_toml(config))
    assert parse_command(["--config", str(printed)]).config == config
    assert RuntimeConfig.from_jsonable(config.to_jsonable()).contract == config.contract
    flags = parse_command(["--config", str(file), "--require", "missed<=3", "--require", "skipped<=1,idle==0"]).config
    assert flags.contract.require == ("missed<=3", "skipped<=1", "idle==0")
    assert make_config(require="acted>=0.5").contract.require == ("acted>=0.5",)


@pytest.mark.parametrize("given", [{"missed": 0}, 3, [None], {"missed": {"deep": 1}}])
def test_a_number_without_a_comparison_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match="require"):
        make_config(require=given)
