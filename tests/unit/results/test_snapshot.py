"""What a process holds of the machine's memory."""

import os
from math import isnan

import pytest

from rtcore.results.snapshot import pss_mb

pytestmark = pytest.mark.unit


def test_memory_is_a_number_of_a_living_process_and_unknown_of_another():
    assert pss_mb(os.getpid()) > 1
    assert isnan(pss_mb(-1))
    assert isnan(pss_mb(2**22 + 7))
