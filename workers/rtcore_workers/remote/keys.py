"""The keys of a link (CURVE): each side proves by its own which one it is, and all that travels is encrypted.

`rtcore-worker keygen FOLDER` writes two files. `run.key` goes to the host with the world, `worker.key` to that of the
worker. Each has the side's own secret and public key, and the public keys of those whom it talks to.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtcore.errors import ConfigError
from rtcore.files.outside import read_bytes
from rtcore.host.extras import import_extra

#: The files of a pair, and what each is for.
RUN_FILE, WORKER_FILE = "run.key", "worker.key"
#: Characters of a key, in Z85.
_KEY_CHARS = 40
_FIELDS = {"secret", "public", "peers"}


def import_zmq(what: str) -> Any:
    """PyZMQ. ConfigError, which names `what` needs it, where it is not installed."""
    return import_extra("zmq", what, "remote")


@dataclass(frozen=True)
class Keys:
    """One side's. `peers`: public keys of the other side: a run trusts the first, a worker any of them."""

    secret: str
    public: str
    peers: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, what: str) -> Keys:
        """From a file that `keygen` wrote.

        Args:
            path: The file.
            what: The setting that names it, for the error.

        Returns:
            The keys.

        Raises:
            ConfigError: It cannot be read, others can read it, or it is no such file.
        """
        raw = read_bytes(path, what)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{what}: others may read {path}, which holds a secret key: chmod 600 {path}")
        try:
            found = tomllib.loads(raw.decode())
        except ValueError as error:
            raise ConfigError(
                f"{what}: {path} is no key file ({error}); expected one of rtcore-worker keygen"
            ) from error
        peers = found.get("peers")
        texts = [found.get("secret"), found.get("public"), *(peers if isinstance(peers, list) else [None])]
        if found.keys() != _FIELDS or len(texts) < 3 or not all(map(_is_key, texts)):
            raise ConfigError(
                f"{what}: {path} is no key file; expected secret, public and peers, keys of {_KEY_CHARS} characters, "
                "as rtcore-worker keygen writes them"
            )
        return cls(str(texts[0]), str(texts[1]), tuple(map(str, texts[2:])))


def _is_key(text: object) -> bool:
    return isinstance(text, str) and len(text) == _KEY_CHARS and text.isascii()


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Make the keys of both sides.

    Args:
        folder: Where they are written; made if it is not there.

    Returns:
        The file of the run's side and that of the worker's.

    Raises:
        ConfigError: There are such files already, or none can be written.
    """
    zmq = import_zmq("rtcore-worker keygen")
    pairs = [tuple(part.decode() for part in zmq.curve_keypair()) for _ in range(2)]
    (run_public, run_secret), (worker_public, worker_secret) = pairs
    files = folder / RUN_FILE, folder / WORKER_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := [str(file) for file in files if file.exists()]:
            raise ConfigError(
                f"{', '.join(there)}: there already; expected a folder without keys, so that none are lost"
            )
        _write(files[0], "the host with the world: rtcore-run --remote-keys", run_secret, run_public, worker_public)
        _write(files[1], "the other host: rtcore-worker --keys", worker_secret, worker_public, run_public)
    except OSError as error:
        raise ConfigError(f"no keys can be written to {folder}: {error}") from error
    return files


def _write(file: Path, goes_to: str, secret: str, public: str, peer: str) -> None:
    lines = [
        f"# For {goes_to} {file.name}",
        "# Keep it to yourself.",
        f"secret = '{secret}'",
        f"public = '{public}'",
        f"peers = ['{peer}']",
    ]
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write("\n".join(lines) + "\n")
