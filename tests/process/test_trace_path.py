"""`rtcore-profile path` on real runs: the stages are all there and add up to what the env process counted."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rtcore.profile import path
from rtcore.profile.path import STAGES, TOLERANCE_PERCENT
from rtcore.profile.results import Result
from rtcore.report.perfetto.writer import TRACE_FILE
from tests.support.tracecheck import parse

pytestmark = pytest.mark.process

FLAGS = ["--env-id", "rtcore/Blocks-v0", "--workers", "3"]


def measure(*flags: str) -> Result:
    return path.run(Namespace(run_flags=[*FLAGS, *flags]), Console(quiet=True))


def adds_up(rows: list[dict[str, Any]], extra: dict[str, Any]) -> None:
    assert [row["stage"] for row in rows] == [*STAGES, "whole"]
    *stages, whole = rows
    for row in rows:
        assert 0 <= row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["max_us"]
    assert sum(row["mean_us"] for row in stages) == pytest.approx(whole["mean_us"], rel=1e-3)
    assert sum(row["share_percent"] for row in stages) == pytest.approx(100, abs=0.1)
    assert extra["actions"] > 5
    assert extra["check"]["agrees"] is True
    assert abs(extra["check"]["difference_percent"]) <= TOLERANCE_PERCENT


def test_the_program_writes_rows_and_a_picture_and_says_what_is_only_waiting(tmp_path: Path) -> None:
    policy = ["--policy", "synthetic", "--policy-args", "latency_ms=30", "--ticks", "120"]
    output = ["--json", str(tmp_path / "path.json"), "--plot", str(tmp_path / "plots")]
    found = subprocess.run(
        [sys.executable, "-m", "rtcore.cli.profile", "path", *FLAGS, *policy, *output],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr + found.stdout
    result = json.loads((tmp_path / "path.json").read_text())
    assert result["profile"] == "path"
    adds_up(result["rows"], result)
    times = {row["stage"]: row for row in result["rows"]}
    assert times["inference"]["p50_us"] >= 30_000
    assert times["host-to-device"]["max_us"] == times["device-to-host"]["max_us"] == 0
    assert "synthetic" in found.stdout
    assert (tmp_path / "plots" / "path.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--stagger", "expected-time"], ["--chunk", "3"], ["--wait", "spin"]], ids=" ".join)
def test_stages_add_up_under_every_way_to_run(flags: list[str]) -> None:
    result = measure("--policy", "random", "--policy-args", "pad_ms=30", "--ticks", "150", *flags)
    adds_up(result.rows, result.extra)
    assert "padded to at least 30 ms" in result.extra["inference_notes"][0]


@pytest.mark.slow
def test_with_out_the_run_is_kept_as_rtcore_run_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = measure("--policy", "mlp", "--ticks", "90", "--out", str(folder))
    adds_up(result.rows, result.extra)
    assert result.extra["inference_notes"] == []
    assert {file.name for file in folder.iterdir()} == {
        ".rtcore-lock",
        "actions.csv",
        "config.json",
        "jobs.csv",
        "summary.json",
        "timeline.png",
        TRACE_FILE,
    }
    kept = json.loads((folder / "config.json").read_text())
    assert kept["config"]["trace"] is True
    assert kept["command"] == [
        "rtcore-profile",
        "path",
        *FLAGS,
        "--policy",
        "mlp",
        "--ticks",
        "90",
        "--out",
        str(folder),
    ]
    assert len(parse(folder / TRACE_FILE).named("dispatch")) == result.extra["actions"]
