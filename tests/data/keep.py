"""Keeps what rtcore writes, for the tests that later code is held to: files it must read, results it must repeat.

    python tests/data/keep.py tests/data/06734c2

runs what `runs.toml` of that folder names, with the rtcore that this Python imports, and keeps the outcome beside it.
Run by the commit that the folder is called after. Keep a new folder where results change on purpose.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

#: Of `cpu_kind`: where this differs, a network computes other last bits.
KIND_FILE = "computed_on.json"


def read_runs(kept: Path) -> dict[str, Any]:
    """Name and words of each run: `[virtual]` to be repeated to the bit, `[files]` whose files are kept whole."""
    return tomllib.loads((kept / "runs.toml").read_text())


def cpu_kind() -> dict[str, str]:
    """What the last bits of a network's output depend on, beside the code of this project."""
    import numpy
    import torch

    return {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def weights_of(out: Path) -> dict[str, str]:
    """SHA-256 of each learned tensor in the newest checkpoint, by its name; {} for a run that learned nothing."""
    folders = sorted(path for path in out.glob("checkpoints/*") if path.name.isdigit())
    if not folders:
        return {}
    tensors = load_file(folders[-1] / "model.safetensors")
    return {name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in sorted(tensors.items())}


def rtcore_run(words: list[str], name: str, folder: Path) -> Path:
    """Run in `folder`, with an output folder called `name` there: what is kept names no folder of one machine."""
    program = Path(sys.executable).with_name("rtcore-run")
    subprocess.run([program, *words, "--no-live", "--out", name], check=True, cwd=folder)
    return folder / name


def main(kept: Path) -> None:
    runs = read_runs(kept)
    (kept / KIND_FILE).write_text(json.dumps(cpu_kind(), indent=2) + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        for name, words in runs["virtual"].items():
            out = rtcore_run([*runs["every_virtual_run"], *words], name, Path(temporary))
            folder = kept / "virtual" / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("actions.csv", "jobs.csv", "summary.json"):
                (folder / f"{file}.gz").write_bytes(gzip.compress((out / file).read_bytes(), mtime=0))
            if weights := weights_of(out):
                (folder / "weights.json").write_text(json.dumps(weights, indent=2) + "\n")
        for name, words in runs["files"].items():
            out = rtcore_run(words, name, Path(temporary))
            # Pictures are drawn from the rest, and the lock is of no use to a reader.
            unwanted = shutil.ignore_patterns(".rtcore-lock", "*.png")
            shutil.rmtree(kept / name, ignore_errors=True)
            shutil.copytree(out, kept / name, symlinks=True, ignore=unwanted)
    with (kept / "settings.toml").open("w") as file:
        command = [Path(sys.executable).with_name("rtcore-run"), *runs["settings"], "--print-config"]
        subprocess.run(command, check=True, stdout=file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
