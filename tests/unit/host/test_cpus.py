"""How many CPUs a run may use: affinity and quotas."""

import os

import pytest

from rtcore.host.cpus import CpuQuota, cpu_quota, usable_cpus

pytestmark = pytest.mark.unit


def finder(files):
    return files.get


def test_without_a_quota_the_affinity_counts():
    assert cpu_quota(finder({})) is None
    assert usable_cpus(finder({})) == len(os.sched_getaffinity(0))
    unlimited = {"/proc/self/cgroup": "0::/a", "/sys/fs/cgroup/a/cpu.max": "max 100000"}
    assert usable_cpus(finder(unlimited)) == len(os.sched_getaffinity(0))


def test_the_tightest_quota_up_the_tree_counts():
    files = {
        "/proc/self/cgroup": "0::/a/b",
        "/sys/fs/cgroup/a/b/cpu.max": "90000 100000",
        "/sys/fs/cgroup/a/cpu.max": "50000 100000",
        "/sys/fs/cgroup/cpu.max": "max 100000",
    }
    assert cpu_quota(finder(files)) == CpuQuota(0.5, 100_000)
    assert usable_cpus(finder(files)) == 0.5


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_quotas_of_the_first_kind_of_control_groups_count(folder):
    files = {
        "/proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/x",
        f"/sys/fs/cgroup/{folder}/x/cpu.cfs_quota_us": "25000",
        f"/sys/fs/cgroup/{folder}/x/cpu.cfs_period_us": "50000",
    }
    assert usable_cpus(finder(files)) == 0.5


def test_what_cannot_be_read_limits_nothing():
    for text in ("", "banana", "100000 0", "-1 100000"):
        files = {"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": text}
        assert cpu_quota(finder(files)) is None


def test_this_machine_has_cpus_to_use():
    assert 0 < usable_cpus() <= len(os.sched_getaffinity(0))
