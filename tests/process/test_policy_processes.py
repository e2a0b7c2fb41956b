"""What the processes of a run have in common, and what not: imports, memory, random numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import rtcore

pytestmark = [pytest.mark.process]
sys.path.insert(0, str(Path(__file__).parent))


def test_torch_is_imported_once_for_all_workers_with_its_meta_device_and_not_for_the_world(tmp_path: Path) -> None:
    said: list[str] = []
    with rtcore.Runtime(
        env_id="policy_probes:Fast",
        env_args={"folder": str(tmp_path)},
        policy="policy_probes:positional",
        policy_args={"folder": str(tmp_path)},
        workers=3,
        ticks=20,
        progress=said.append,
    ) as runtime:
        runtime.wait()
        summary = runtime.summary()
    assert json.loads((tmp_path / "env.json").read_text()) == {"torch": False}
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("worker-*.json")]
    assert sorted(note["on_meta"] for note in notes) == [False, True, True]
    assert all(note["meta_imported"] for note in notes), "before they were forked"
    phases = summary["startup"]
    assert list(phases) == ["world", "imports", "workers", "rehearsal"]
    assert summary["startup_s"] == pytest.approx(sum(phases.values()), abs=1e-4)
    assert said[0] == "making the world policy_probes:Fast"
