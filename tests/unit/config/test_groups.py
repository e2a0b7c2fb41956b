"""Settings in groups: given flat or as a group, read from their group, described once."""

import pytest
from pydantic import ValidationError

from rtcore.config.groups import LearningSettings, OutputSettings, ScheduleSettings, WeightsSettings
from rtcore.config.run import GROUP_OF, GROUPS, SETTINGS, RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.learn.resuming import settings_of

pytestmark = pytest.mark.unit


def test_every_setting_has_one_name_one_group_and_one_description():
    names = [name for group in GROUPS.values() for name in group.model_fields]
    assert len(names) == len(set(names)) == len(SETTINGS)
    assert not set(names) & set(GROUPS), "a flat name may not be the name of a group"
    assert all(info.description for info in SETTINGS.values())
    assert list(make_config().settings) == names


def test_a_flat_name_is_read_from_its_group_and_told_so_where_it_is_read_flat():
    config = RuntimeConfig(env_id="CartPole-v1", workers=3)
    assert (config.world.env_id, config.schedule.workers) == ("CartPole-v1", 3)
    with pytest.warns(DeprecationWarning, match=r"config.env_id is now config.world.env_id"):
        assert config.env_id == "CartPole-v1"
    with pytest.raises(AttributeError, match="no_such_setting"):
        _ = config.no_such_setting


def test_a_group_may_be_given_whole_and_only_what_was_said_in_it_counts_as_given():
    config = make_config(schedule=ScheduleSettings(workers=3), env_id="CartPole-v1", stagger="sequential")
    assert config == make_config(workers=3, env_id="CartPole-v1", stagger="sequential")
    assert config.given == {"env_id": "CartPole-v1", "workers": 3, "stagger": "sequential"}
    with pytest.raises(ConfigError, match="workers: given twice"):
        make_config(schedule=ScheduleSettings(workers=3), workers=4)


def test_files_have_flat_keys_only_as_what_they_may_not_choose_is_looked_for_there():
    for value in ({"env_id": "own:make"}, "runs/x", 3):
        with pytest.raises(ConfigError, match="unknown key 'world'"):
            make_config(world=value, env_id="CartPole-v1")
    with pytest.raises(ConfigError, match="unknown key 'output'"):
        make_config(output="runs/x", record=True)


def test_a_resumed_run_is_found_in_a_group_as_by_its_name(tmp_path):
    groups = {"weights": WeightsSettings(resume=tmp_path / "none"), "learning": LearningSettings(learn="dqn")}
    with pytest.raises(ConfigError, match="resume: .*none"):
        settings_of(groups)
    with pytest.raises(ConfigError, match="learn: given twice"):
        settings_of(groups | {"learn": "dqn"})


def test_what_follows_from_a_setting_is_there_however_the_settings_were_made():
    for output in (OutputSettings(video=True), make_config(video=True).output):
        assert (output.record, str(output.out)) == (True, "runs/latest")
    for schedule in (ScheduleSettings(workers=200), make_config(workers=200).schedule):
        assert schedule.max_workers == 200
    assert "record" not in make_config(video=True).given


def test_a_group_keeps_its_own_rules_and_the_config_those_between_groups():
    with pytest.raises(ValidationError, match="use --learners 1"):
        LearningSettings(learn="dqn", mode="infer-then-learn", learners=2)
    with pytest.raises(ConfigError, match="no network to learn with"):
        make_config(learn="dqn", policy="random")


def test_other_settings_are_another_config():
    config = make_config(seed=1)
    assert config.replace(seed=2, workers=5) == make_config(seed=2, workers=5)
    assert config.world.seed == 1
    with pytest.raises(ValidationError, match="frozen"):
        config.world = make_config().world


def test_json_is_flat_as_it_was_before_there_were_groups():
    plain = make_config(env_args={"level": 9}, duration=float("inf")).to_jsonable()
    assert list(plain) == list(GROUP_OF)
    assert (plain["env_args"], plain["duration"]) == ({"level": 9}, "inf")


def test_more_workers_than_a_machine_can_start_are_for_the_virtual_clock_only():
    assert make_config(workers=10_000, clock="virtual", latency="constant:5").schedule.max_workers == 10_000
    for name in ("workers", "max_workers"):
        with pytest.raises(ConfigError, match=f"{name}=5000: each is a process; expected at most 4096"):
            make_config(**{name: 5000})
    with pytest.raises(ConfigError, match="expected a whole number from 1 to 65536, or auto"):
        make_config(workers=100_000, clock="virtual")
