"""What is published, as a stranger meets it: built, looked at, and installed where nothing else is.

One environment for all: the wheel and what it asks for, its user not root if this one is, with an empty home.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NOBODY = 65534
#: A program of somebody else, typed.
CONSUMER = """\
from fractions import Fraction

import rtcore
from rtcore.errors import PolicyError


def share_of(seed: int) -> float:
    with rtcore.Runtime(env_id="CartPole-v1", policy="mlp", seed=seed, ticks=50) as runtime:
        while not runtime.wait(0.1):
            print(runtime.stats().acted_fraction)
    grid = rtcore.TickGrid(epoch_ns=0, rate_hz=Fraction(60))
    try:
        with rtcore.RealtimeEnv("CartPole-v1", fps=50) as env:
            print(env.reset(seed=seed))
    except PolicyError as error:
        print(error, grid)
    share: float = runtime.summary()["actions"]["acted_fraction"]
    return share
"""
#: Lines that a type checker refuses only if it knows rtcore's types.
WRONG = 'import rtcore\n\nruntime = rtcore.Runtime()\nruntime.wait("long")\n'


class Built(NamedTuple):
    sdist: Path
    wheel: Path


def call(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "timeout": 1200, "cwd": ROOT}
    return subprocess.run([str(word) for word in command], check=False, **settings | options)


def must(*command: str | Path, **options: Any) -> str:
    done = call(*command, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("build", reason="not installed: make dist")
    out = tmp_path_factory.mktemp("dist")
    # The wheel is built from the source distribution, so that what is published is enough.
    must(sys.executable, "-m", "build", "--outdir", out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sdist, wheel)


class Stranger(NamedTuple):
    """Somebody with the wheel and nothing else."""

    python: Path
    home: Path
    user: dict[str, Any]

    def call(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.python.parent}:/usr/bin:/bin", "HOME": str(self.home)} | more
        return call(*command, env=environment, cwd=self.home, **self.user)

    def must(self, *command: str | Path, **more: str) -> str:
        done = self.call(*command, **more)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


def interpreter(user: dict[str, Any]) -> str:
    """A Python that this user may run: that of these tests may lie in another's home."""
    for python in (sys._base_executable, "/usr/bin/python3"):
        words = [python, "-c", "import sys; assert sys.version_info >= (3, 11)"]
        try:
            if subprocess.run(words, check=False, capture_output=True, **user).returncode == 0:
                return python
        except (PermissionError, FileNotFoundError):
            continue
    pytest.skip(f"no Python that user {NOBODY} may run")


@pytest.fixture(scope="module")
def stranger(built: Built) -> Iterator[Stranger]:
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="rtcore-stranger-"))
    folder.chmod(0o755)
    try:
        venv, home = folder / "venv", folder / "home"
        must(interpreter(user), "-m", "venv", "--without-pip", venv)
        python = venv / "bin" / "python"
        torch = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        assert torch
        # PyTorch first and pinned, as in docker/install.sh: else a larger build of it is fetched.
        pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--constraint")
        index = os.environ.get("TORCH_INDEX_URL")
        must(*pip, "constraints.txt", *(["--index-url", index] if index else []), torch[0])
        must(*pip, "constraints.txt", built.wheel)
        home.mkdir()
        if user:
            os.chown(home, NOBODY, NOBODY)
        yield Stranger(python, home, user)
    finally:
        shutil.rmtree(folder)


def test_an_index_would_take_them(built: Built) -> None:
    pytest.importorskip("twine", reason="not installed: make dist")
    must(sys.executable, "-m", "twine", "check", "--strict", *built)
    metadata = importlib.metadata.PathDistribution(zipfile.Path(built.wheel, metadata_folder(built.wheel))).metadata
    assert {line.split(",")[0] for line in metadata.get_all("Project-URL") or []} >= {
        "Documentation",
        "Source",
        "Issues",
    }
    assert metadata["Keywords"]
    assert metadata["License-Expression"] == "MIT"
    assert "all" in (metadata.get_all("Provides-Extra") or [])


def metadata_folder(wheel: Path) -> str:
    (folder,) = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name}
    return f"{folder}/"


def test_one_wheel_serves_every_cpython_and_any_linux_of_the_last_ten_years(built: Built) -> None:
    pytest.importorskip("auditwheel", reason="not installed: make dist")
    assert re.search(r"-cp311-abi3-linux_\w+\.whl$", built.wheel.name)
    must(sys.executable, "-m", "abi3audit", "--strict", built.wheel)
    shown = " ".join(must(sys.executable, "-m", "auditwheel", "show", built.wheel).split())
    fits = re.search(r'consistent with the following platform tag: "manylinux_2_(\d+)_', shown)
    assert fits, shown
    assert int(fits[1]) <= 28, "what cibuildwheel builds on"


def test_cibuildwheel_builds_one_for_each_kind_of_processor() -> None:
    pytest.importorskip("cibuildwheel", reason="not installed: make dist")
    words = ("--platform", "linux", "--archs", "x86_64,aarch64", "--print-build-identifiers", ".")
    said = must(sys.executable, "-m", "cibuildwheel", *words)
    assert said.split() == ["cp311-manylinux_x86_64", "cp311-manylinux_aarch64"]


def test_they_hold_the_packages_and_nothing_of_this_machine(built: Built) -> None:
    in_wheel = set(zipfile.ZipFile(built.wheel).namelist())
    with tarfile.open(built.sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    roots = {name.split("/")[0] for name in in_wheel if ".dist-info/" not in name}
    assert roots == {"rtcore", "rtcore_workers", "rtcore_envs"}
    assert {f"{root}/py.typed" for root in roots} <= in_wheel
    tracked = set(must("git", "ls-files").split("\n"))
    assert not {name for name in in_sdist if name not in tracked} - {"", "PKG-INFO"} - folders(in_sdist)
    assert {"tests/process/test_packages.py", "docs/index.md", "rtcore/_tick/module.c", "LICENSE"} <= in_sdist


def folders(names: set[str]) -> set[str]:
    return {str(parent) for name in names for parent in Path(name).parents}


def test_a_stranger_plays_in_an_empty_home_and_every_dependency_is_needed(stranger: Stranger) -> None:
    # What any process of the run imports, written down by Python itself.
    site = Path(stranger.must(stranger.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    log = stranger.home / "imported"
    hook = site / "log_imports.pth"
    hook.write_text(
        "import os, sys; log = os.environ.get('LOG_IMPORTS'); log and sys.addaudithook(lambda event, what, o=os, "
        "log=log: event == 'import' and o.write(o.open(log, 1025 | o.O_CREAT), f'{what[0]}\\n'.encode()))\n"
    )
    try:
        said = stranger.must("rtcore-run", "--duration", "3", "--out", "run", LOG_IMPORTS=str(log))
    finally:
        hook.unlink()
    assert "nothing left in /dev/shm" in said
    summary = json.loads((stranger.home / "run/summary.json").read_text())
    assert summary["actions"]["acted_fraction"] > 0
    assert stranger.home.joinpath("run/timeline.png").stat().st_size > 0
    # A package that is imported by its name in a text is known by its parts only.
    imported = {name.split(".")[0] for name in log.read_text().split("\n")}
    names = {"pillow": "PIL", "pydantic-settings": "pydantic_settings"}
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        package = re.split(r"[><=]", requirement)[0]
        assert names.get(package, package) in imported, f"{package}: a run imports it nowhere"


def test_a_strangers_programs_say_their_version_and_the_tick_path_is_compiled(stranger: Stranger) -> None:
    for program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]:
        assert re.fullmatch(r"rtcore \d+\.\d+\.\d+\n", stranger.must(program, "--version"))
    found = json.loads(stranger.call("rtcore-doctor", "--json").stdout)
    checks = {check["check"]: check["status"] for check in found["checks"]}
    assert checks["system.tick_path"] == "ok"
    assert checks["system.packages"] == "ok"


@pytest.mark.parametrize("example", ["embed.py", "train_pytorch.py"])
def test_examples_run_from_a_folder_of_the_strangers(stranger: Stranger, example: str) -> None:
    for file in (ROOT / "examples").glob("*.py"):
        shutil.copy(file, stranger.home)
    arguments = {"embed.py": ("--duration", "1"), "train_pytorch.py": ("--updates", "20")}[example]
    assert stranger.must("python", example, *arguments)


def test_mypy_and_pyright_know_the_types_of_the_wheel(stranger: Stranger, tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="not installed: make dist")
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", stranger.python)
    pyright = (sys.executable, "-m", "pyright", "--pythonpath", stranger.python)
    for checker in (mypy, pyright):
        done = call(*checker, "consumer.py", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        done = call(*checker, "wrong.py", cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        assert len(re.findall(r"wrong\.py:4.*error", done.stdout)) == 1, done.stdout
