"""What is said of the machine beside every result."""

import json

import psutil
import pytest

from rtcore.host import conditions

pytestmark = pytest.mark.unit


def test_shares_are_of_the_time_between_the_two_looks(monkeypatch):
    times = psutil.cpu_times()
    before = times._replace(**dict.fromkeys(times._fields, 0.0) | {"user": 100, "idle": 1000, "iowait": 50, "steal": 7})
    after = before._replace(user=160, guest=60, idle=1030, steal=17)
    readings = iter([before, after])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    found = conditions.HostWatch().conditions()
    assert (found["steal_percent"], found["busy_percent"]) == (10.0, 70.0)


def test_where_no_time_went_by_no_share_is_said(monkeypatch):
    times = psutil.cpu_times()
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    found = conditions.HostWatch().conditions()
    assert (found["steal_percent"], found["busy_percent"]) == (None, None)
    assert "steal time not known" in conditions.conditions_text(found)


def test_the_real_machine_is_described_in_json_and_in_words():
    found = conditions.HostWatch().conditions()
    assert json.loads(json.dumps(found)) == found
    assert found["usable_cpus"] >= 1
    text = conditions.conditions_text(found)
    assert found["kernel"] in text
    assert found["cpu_model"] in text
