"""What the forge, its users and an index read: each file fits its schema, and says what the others say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import rtcore

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
FORGE = ROOT / ".github"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Extras of who works on rtcore.
FOR_WORK = {"dev", "docs", "dist"}
WITH_SCHEMA = {
    "github-workflows": sorted(FORGE.glob("workflows/*.yml")),
    "github-issue-forms": [path for path in sorted(FORGE.glob("ISSUE_TEMPLATE/*.yml")) if path.stem != "config"],
    "github-issue-config": [FORGE / "ISSUE_TEMPLATE/config.yml"],
    "dependabot": [FORGE / "dependabot.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


def read(path: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("schema", WITH_SCHEMA)
def test_a_file_of_the_forge_fits_its_schema(schema: str) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    assert WITH_SCHEMA[schema]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *WITH_SCHEMA[schema]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout


def test_before_a_commit_the_commands_of_make_check_run() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    beside = re.search(r"^SIDE_BY_SIDE := (.*)$", makefile, re.MULTILINE)
    assert recipe
    assert beside
    lines = recipe[1].replace("$(BIN)", ".venv/bin").replace("$(SIDE_BY_SIDE)", beside[1])
    (repo,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repo["hooks"]] == [line.strip() for line in lines.splitlines()]


def test_every_python_that_the_package_names_runs_the_tests() -> None:
    versions = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    job = read(FORGE / "workflows/ci.yml")["jobs"]["run"]
    assert job["strategy"]["matrix"]["python"] == versions
    assert {"run": ".ci/run"} in job["steps"]
    assert versions[0] == PROJECT["requires-python"].removeprefix(">=")


def test_an_action_of_others_is_named_by_its_commit() -> None:
    used = [line for path in FORGE.glob("workflows/*.yml") for line in re.findall(r"uses: (.+)", path.read_text())]
    of_others = [line for line in used if not line.startswith("./")]
    assert of_others
    assert [line for line in of_others if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_whoever_reports_a_fault_is_asked_for_what_the_doctor_says() -> None:
    for form in ("bug", "slow"):
        asked = {field["id"]: field for field in read(FORGE / f"ISSUE_TEMPLATE/{form}.yml")["body"]}
        assert asked["doctor"]["attributes"]["label"] == "rtcore-doctor --json"
        assert asked["doctor"]["validations"]["required"]


def test_every_address_is_of_the_places_that_the_package_names() -> None:
    places = tuple(PROJECT["urls"].values())
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    files = [*FORGE.rglob("*.yml"), *pages, *ROOT.glob("*.yml"), ROOT / "CITATION.cff"]
    named = {
        (str(path.relative_to(ROOT)), address)
        for path in files
        for address in re.findall(r"https?://[^\s/)>'\"]*\.example[^\s)>'\"]*", path.read_text())
    }
    assert named
    assert not {(file, address) for file, address in named if not address.startswith(places)}


def test_the_changelog_is_in_form_and_its_newest_version_is_that_of_the_package() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *released = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}", title) for title in released]
    assert all(versions), released
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for name in ("Unreleased", *(version[1] for version in versions if version)):
        assert f"\n[{name}]: {PROJECT['urls']['Source']}/" in text
    assert versions[0] is not None
    assert {versions[0][1]} == {PROJECT["version"], rtcore.__version__, read(ROOT / "CITATION.cff")["version"]}


def test_all_is_every_extra_of_who_uses_rtcore() -> None:
    extras = PROJECT["optional-dependencies"]
    (all_of_them,) = extras["all"]
    assert set(all_of_them.removeprefix("rtcore[").removesuffix("]").split(",")) == extras.keys() - FOR_WORK - {"all"}


def test_the_page_on_installing_says_what_each_extra_is_for() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs/install.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == PROJECT["optional-dependencies"].keys() - FOR_WORK - {"all"}
