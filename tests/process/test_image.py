"""The container image, built and run: `make image`, then what docs/docker.md says of the containers.

Needs root, podman (with runc or crun) and mmdebstrap. Debian: apt-get install podman runc catatonit mmdebstrap.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.image, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
IMAGE = f"localhost/rtcore-test:{os.getpid()}"
#: Made by docker/base.sh the first time: no image registry is asked.
BASE = "localhost/rtcore-base"
#: An engine's own defaults may be above what this machine's root may give.
LIMITS = [
    f"--ulimit={name}={limit}:{limit}"
    for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    if (limit := min(4096, resource.getrlimit(kind)[1]))
]
RIGHTS = ["--init", "--shm-size=1g", "--cap-add=SYS_NICE", "--cap-add=IPC_LOCK"]


def call(*command: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def podman_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`podman run`, and its container gone afterwards."""
    return call("podman", "run", "--rm", "--network=none", *LIMITS, *arguments)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    missing = [program for program in ("podman", "mmdebstrap") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    if os.geteuid() != 0:
        pytest.skip("not root")
    works = call("podman", "info")
    if works.returncode != 0:
        pytest.skip(f"podman does not work here: {works.stderr.strip()}")
    # The same build of PyTorch from the same places as `make install` takes.
    indexes = {"TORCH_INDEX_URL": os.environ.get("TORCH_INDEX_URL", "")}
    had_base = call("podman", "image", "exists", BASE).returncode == 0
    options = f"--engine podman --base {BASE} --tag {IMAGE} --flags=--layers=false"
    built = call("make", "image", f"IMAGE={options}", timeout=1200, **indexes)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    yield IMAGE
    call("podman", "rmi", "--force", IMAGE, *([] if had_base else [BASE]))


def test_a_run_without_any_rights_plays_as_a_user_who_is_not_root_and_says_what_was_refused(image: str) -> None:
    assert podman_run("--entrypoint=id", image, "--user").stdout == "10001\n"
    done = podman_run(image, "--duration", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REFUSED SCHED_FIFO" in done.stdout
    assert "nothing left in /dev/shm" in done.stdout


def test_the_doctor_finds_nothing_lacking_with_what_compose_asks_for(image: str) -> None:
    done = podman_run(*RIGHTS, "--entrypoint=rtcore-doctor", image, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    checks = {check["check"]: check for check in found["checks"]}
    assert checks["container.capabilities"]["status"] == "ok", checks["container.capabilities"]
    assert checks["shm.room"]["status"] == "ok", checks["shm.room"]


def test_an_own_world_and_policy_are_mounted_and_the_run_folder_stays_outside(image: str, tmp_path: Path) -> None:
    for name in ("own_world.py", "own_policy.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    tmp_path.chmod(0o777)
    own = ["--env-id", "own_world:make_world", "--policy", "own_policy:make_policy"]
    done = podman_run(*RIGHTS, f"--volume={tmp_path}:/work", image, *own, "--duration", "2", "--out", "runs/first")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "runs/first/summary.json").read_text())
    assert summary["actions"]["acted_fraction"] > 0
    assert (tmp_path / "runs/first/actions.csv").stat().st_uid == 10001


def test_too_little_shared_memory_is_refused_with_what_to_do(image: str) -> None:
    done = podman_run("--shm-size=4m", image, "--duration", "2")
    assert done.returncode in {1, 2}
    assert "--shm-size" in done.stderr


def test_stopping_a_container_ends_its_run_with_a_summary(image: str) -> None:
    name = f"rtcore-test-{os.getpid()}"
    command = ["podman", "run", "--name", name, "--network=none", *LIMITS, *RIGHTS, image, "--duration", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            assert running.stdout is not None
            said = []
            for line in running.stdout:
                said.append(line)
                if "late p99" in line:
                    break
            stopped = call("podman", "stop", "--time=30", name)
            said += running.stdout.readlines()
        finally:
            call("podman", "rm", "--force", name)
    assert stopped.returncode == 0, stopped.stderr
    assert running.returncode == 143, "".join(said)
    assert "nothing left in /dev/shm" in "".join(said)


def test_the_compose_file_runs_the_image(image: str, tmp_path: Path) -> None:
    pytest.importorskip("podman_compose", reason="podman-compose is not installed")
    compose = [sys.executable, "-m", "podman_compose", "--file", "docker/compose.yaml"]
    ulimits = ""
    if podman_run("--ulimit=rtprio=20", "--ulimit=memlock=-1", "--entrypoint=true", image).returncode != 0:
        # Root of this machine may not raise limits; the capabilities remain.
        ulimits = ", ulimits: !override {nofile: 4096, nproc: 4096}"
    other = tmp_path / "override.yaml"
    other.write_text(f"services: {{cpu: {{image: '{image}', network_mode: none{ulimits}}}}}")
    done = call(*compose, "--file", str(other), "run", "--rm", "-T", "cpu", "--duration", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mlockall" in done.stdout
    assert "REFUSED mlockall" not in done.stdout
