"""Comparing a result with an older one: what fails, what passes, what is refused."""

import json

import pytest

from rtcore.errors import ConfigError
from rtcore.profile.results import Condition, Result, compare, differences, load_result, unmatched

pytestmark = pytest.mark.unit

KEYS = ("transport", "readers")
ODD_ROW = '{"profile": "ipc", "rows": [1]}'
ODD_MACHINE = '{"profile": "ipc", "rows": [], "machine": [1]}'


def row(transport, p99_us, readers=1, **more):
    return {"transport": transport, "readers": readers, "p99_us": p99_us, **more}


def result_of(*rows):
    return Result("ipc", list(rows), KEYS, watched=lambda row: row["transport"].startswith("rtcore"))


def worse_of(condition, old, new):
    baseline = result_of(*old).to_json({})
    return [one.is_worse for one in compare(result_of(*new), baseline, Condition.parse(condition))]


@pytest.mark.parametrize(
    ("text", "metric", "where", "change_percent"),
    [
        ("ipc.p99>+10%", "p99", {}, 10),
        ("ipc.p99>10%", "p99", {}, 10),
        (" ipc.p99_us [readers=1] > +2.5 % ", "p99_us", {"readers": "1"}, 2.5),
        ("ipc.p99[transport=rtcore-hybrid, readers=8]>+0%", "p99", {"transport": "rtcore-hybrid", "readers": "8"}, 0),
        ("scale.acted<-2%", "acted", {}, -2),
    ],
)
def test_a_condition_names_a_metric_rows_and_a_change(text, metric, where, change_percent):
    condition = Condition.parse(text)
    assert (condition.metric, condition.where, condition.change_percent) == (metric, where, change_percent)


@pytest.mark.parametrize(
    "text", ["", "p99>+10%", "ipc.p99", "ipc.p99>+10", "ipc.p99>-10%", "ipc.p99[readers]>+1%", "a.b=1%"]
)
def test_a_condition_that_cannot_be_understood_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="expected"):
        Condition.parse(text)


def test_a_metric_that_may_be_several_is_refused_until_one_is_named():
    old = [row("rtcore-spin", 1.0, skipped_ticks=1, skipped_starts=2)]
    with pytest.raises(ConfigError, match="may be skipped_starts or skipped_ticks; name one"):
        worse_of("ipc.skipped>+10%", old, old)
    assert worse_of("ipc.skipped_ticks>+10%", old, old) == [False]


def test_more_than_the_allowed_growth_is_worse_and_exactly_that_much_is_not():
    assert worse_of("ipc.p99>+10%", [row("rtcore-spin", 100.0)], [row("rtcore-spin", 110.0)]) == [False]
    assert worse_of("ipc.p99>+10%", [row("rtcore-spin", 100.0)], [row("rtcore-spin", 110.1)]) == [True]
    assert worse_of("ipc.p99>+10%", [row("rtcore-spin", 100.0)], [row("rtcore-spin", 1.0)]) == [False]


def test_where_less_is_worse_a_fall_counts_and_a_rise_does_not():
    assert worse_of("ipc.p99<-2%", [row("rtcore-spin", 100.0)], [row("rtcore-spin", 97.0)]) == [True]
    assert worse_of("ipc.p99<-2%", [row("rtcore-spin", 100.0)], [row("rtcore-spin", 99.0)]) == [False]
    assert worse_of("ipc.p99<-0%", [row("rtcore-spin", 100.0)], [row("rtcore-spin", 101.0)]) == [False]


def test_without_a_selection_other_transports_may_get_slower():
    old = [row("rtcore-spin", 100.0), row("pipe", 100.0)]
    new = [row("rtcore-spin", 100.0), row("pipe", 900.0)]
    assert worse_of("ipc.p99>+10%", old, new) == [False]
    assert worse_of("ipc.p99[transport=pipe]>+10%", old, new) == [True]


def test_rows_are_matched_by_their_keys_and_not_by_their_order():
    old = [row("rtcore-spin", 10.0, readers=1), row("rtcore-spin", 80.0, readers=8)]
    new = [row("rtcore-spin", 80.0, readers=8), row("rtcore-spin", 10.0, readers=1)]
    assert worse_of("ipc.p99>+0%", old, new) == [False, False]


def test_a_number_that_was_not_measured_is_not_compared():
    old = [row("rtcore-spin", None), row("rtcore-block", 5.0)]
    new = [row("rtcore-spin", 50.0), row("rtcore-block", 50.0)]
    assert worse_of("ipc.p99>+10%", old, new) == [True]


def test_rows_that_the_baseline_does_not_have_are_counted():
    baseline = result_of(row("rtcore-spin", 1.0)).to_json({})
    assert unmatched(result_of(row("rtcore-spin", 1.0), row("rtcore-spin", 1.0, readers=8)), baseline) == 1


@pytest.mark.parametrize("gone", [[row("rtcore-spin", None)], [row("rtcore-spin", float("nan"))], []])
@pytest.mark.parametrize("condition", ["ipc.p99>+10%", "ipc.p99[transport=rtcore-spin]>+10%", "ipc.p99<-10%"])
def test_what_had_a_number_and_has_none_now_is_worse(condition, gone):
    old = [row("rtcore-spin", 5.0)]
    other = row("pipe", 5.0)
    assert worse_of(condition, [*old, other], [*gone, other]) == [True]


def test_nothing_measured_at_all_is_worse():
    assert worse_of("ipc.p99>+10%", [row("rtcore-spin", 5.0)], []) == [True]


def test_a_transport_of_others_that_stopped_working_is_no_regression_unless_it_is_named():
    old = [row("rtcore-spin", 5.0), row("pipe", 5.0)]
    new = [row("rtcore-spin", 5.0)]
    assert worse_of("ipc.p99>+10%", old, new) == [False]
    assert worse_of("ipc.p99[transport=pipe]>+10%", old, new) == [True]


def test_a_row_without_the_fields_that_name_rows_is_not_compared():
    assert worse_of("ipc.p99>+10%", [{"p99_us": 1.0}, row("rtcore-spin", 5.0)], [row("rtcore-spin", 5.0)]) == [False]


def test_without_a_condition_the_watched_rows_are_put_side_by_side_and_nothing_is_worse():
    baseline = result_of(row("rtcore-spin", 10.0), row("rtcore-block", 4.0), row("pipe", 1.0)).to_json({})
    found = differences(result_of(row("rtcore-spin", 90.0), row("pipe", 9.0)), baseline)
    assert [(one.row["transport"], one.metric, one.old, one.new, one.is_worse) for one in found] == [
        ("rtcore-spin", "p99_us", 10.0, 90.0, False),
        ("rtcore-block", "p99_us", 4.0, None, False),
    ]


def test_nothing_to_compare_is_an_error_and_not_a_pass():
    with pytest.raises(ConfigError, match="none of 1 rows can be compared by p99_us"):
        worse_of("ipc.p99>+10%", [row("rtcore-spin", 1.0, readers=8)], [row("rtcore-spin", 1.0)])


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("ipc.p95>+10%", "no field 'p95'; there are p99_us, readers"),
        ("ipc.p99[frame=84x84]>+10%", "no field 'frame'"),
        ("ipc.p99[readers=32]>+10%", "no row of the baseline has readers=32"),
        ("tick.p99>+10%", "the condition is about 'tick'"),
    ],
)
def test_what_the_baseline_does_not_have_is_named(condition, words):
    baseline = result_of(row("rtcore-spin", 1.0)).to_json({})
    with pytest.raises(ConfigError) as caught:
        Condition.parse(condition).rows_of(baseline)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "no profile and rows"),
        ('{"rows": []}', "no profile"),
        (ODD_ROW, "a row that is 1"),
        (ODD_MACHINE, "a machine"),
    ],
)
def test_a_baseline_that_is_no_result_is_refused(tmp_path, text, words):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_result(path)


def test_a_baseline_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_result(tmp_path / "old.json")


def test_a_result_survives_json_with_its_extra_fields(tmp_path):
    result = Result("gpu", [], (), {"gpu": None})
    path = tmp_path / "new.json"
    path.write_text(json.dumps(result.to_json({"host": "here"})))
    assert load_result(path) == {"profile": "gpu", "machine": {"host": "here"}, "rows": [], "gpu": None}
