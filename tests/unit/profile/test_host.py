"""What is said of the machine beside every result."""

import json

import pytest

from rtcore.profile import host

pytestmark = pytest.mark.unit


def watch_over(monkeypatch, before, after):
    readings = iter([before, after])
    monkeypatch.setattr(host, "_read_stat", lambda: next(readings))
    return host.HostWatch().conditions()


def test_shares_are_of_the_time_between_the_two_looks(monkeypatch):
    before = {"user": 100, "idle": 1000, "iowait": 50, "steal": 7}
    after = {"user": 160, "idle": 1030, "iowait": 50, "steal": 17}
    found = watch_over(monkeypatch, before, after)
    assert (found["steal_percent"], found["busy_percent"]) == (10.0, 70.0)


def test_where_the_kernel_says_nothing_nothing_is_said(monkeypatch):
    found = watch_over(monkeypatch, {}, {})
    assert (found["steal_percent"], found["busy_percent"]) == (None, None)
    assert "steal time not known" in host.conditions_text(found)


def test_the_real_machine_is_described_in_json_and_in_words():
    found = host.HostWatch().conditions()
    assert json.loads(json.dumps(found)) == found
    assert found["usable_cpus"] >= 1
    text = host.conditions_text(found)
    assert found["kernel"] in text
    assert found["cpu_model"] in text
