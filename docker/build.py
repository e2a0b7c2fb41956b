"""Builds the image as `make image` does, with docker, podman or buildah, whichever works.

Beyond `docker build -f docker/Dockerfile .` it takes care of two things. pip's settings on this machine (a mirror, a
certificate, folders of wheels) go into the build as a secret, so that what `make install` finds, the image finds. And
where the base image can be had from no registry, `docker/base.sh` makes it from Debian's packages.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGINES = ("docker", "podman", "buildah")
#: Where a base is kept that was made here.
OWN_BASE = "localhost/rtcore-base"
#: Where a build finds the folders of this machine that pip's settings name.
INSIDE = "/mnt/host"
#: Build arguments that come from the environment. Set but empty counts.
ARGUMENTS = ("WHAT", "TORCH_INDEX_URL")


def main() -> int:
    options = parse_arguments()
    engine = options.engine or next(filter(answers, ENGINES), None)
    if engine is None or not answers(engine):
        wanted = engine or ", ".join(ENGINES)
        sys.exit(
            f"{wanted}: not installed, or no daemon runs; expected a container engine. Debian: apt-get install podman"
        )
    command = [engine, "build", "--file", "docker/Dockerfile", "--tag", options.tag]
    command += ["--build-arg", f"BASE={usable_base(engine, options.base)}"]
    for name in ARGUMENTS:
        if name in os.environ:
            command += ["--build-arg", f"{name}={os.environ[name]}"]
    command += shlex.split(options.flags)
    settings, folders = as_seen_inside(pip_settings())
    if folders and Path(engine).name == "docker":
        print(
            f"docker build cannot read {', '.join(folders)}, which pip's settings name; --engine podman can", flush=True
        )
        folders = []
    for path in folders:
        command += ["--volume", f"{path}:{INSIDE}{path}:ro"]
    with tempfile.NamedTemporaryFile("w", prefix="rtcore-pip-") as secret:  # readable by its owner only
        if settings:
            secret.write("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
            secret.flush()
            command += ["--secret", f"id=pip,src={secret.name}"]
        print(shlex.join([*command, "."]), flush=True)
        return subprocess.run([*command, "."], cwd=ROOT, check=False).returncode


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="From the environment: WHAT and TORCH_INDEX_URL, the Dockerfile's arguments. For NVIDIA GPUs:\n"
        "  TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 make image IMAGE='--tag rtcore:cuda'",
    )
    parser.add_argument("--tag", default="rtcore:cpu", help="name of the image [%(default)s]")
    parser.add_argument("--base", default="debian:bookworm-slim", help="image to build on [%(default)s]")
    parser.add_argument("--engine", help="program that builds [the first that works of: " + ", ".join(ENGINES) + "]")
    parser.add_argument(
        "--flags", default="", help="more arguments for it, in one string, such as --flags='--no-cache'"
    )
    return parser.parse_args()


def answers(engine: str) -> bool:
    """Whether an engine is installed and works: docker's command without its daemon does not."""
    return shutil.which(engine) is not None and is_done([engine, "info"])


def is_done(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def usable_base(engine: str, base: str) -> str:
    """`base` if the engine has it or can pull it; else one that is made here."""
    if is_done([engine, "inspect", "--type", "image", base]) or is_done([engine, "pull", base]):
        return base
    print(f"{base} is not here and cannot be pulled; making {OWN_BASE} from Debian's packages", flush=True)
    if shutil.which("mmdebstrap") is None:
        sys.exit("mmdebstrap is not on PATH; expected Debian's program that does this: apt-get install mmdebstrap")
    subprocess.run(["sh", str(ROOT / "docker/base.sh"), engine, OWN_BASE], check=True)
    return OWN_BASE


def pip_settings() -> dict[str, str]:
    """What pip obeys here for every command, from its files and PIP_* variables (which win), as pip.conf has it."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, str] = {}
    for prefix in ("global.", ":env:."):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(prefix) and name != ":env:.config-file":
                found[name.removeprefix(prefix)] = " ".join(ast.literal_eval(value).split())
    return found


def as_seen_inside(settings: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The settings as they hold in a build that has these paths under INSIDE, and those paths."""
    seen: dict[str, str] = {}
    paths: set[str] = set()
    for name, value in settings.items():
        words = []
        for word in value.split():
            scheme, path = ("file://", word[7:]) if word.startswith("file://") else ("", word)
            if path.startswith("/") and Path(path).exists():
                # An index on disk refers to files beside it.
                paths.add(str(Path(path).parent) if scheme else path)
                path = INSIDE + path
            words.append(scheme + path)
        seen[name] = " ".join(words)
    return seen, sorted(paths)


if __name__ == "__main__":
    sys.exit(main())
