"""Checkpoints on disk: safetensors and JSON, written so that a crash at any moment leaves the last good one.

    OUT/checkpoints/000012000/model.safetensors      the network, as its state_dict
                              optimizer.safetensors  exp_avg.*, exp_avg_sq.* and target.* of each trained parameter
                              state.json             counters, seed, best return, what it was trained on, config
                              SHA256SUMS             of the three; checked whenever one is read
    OUT/checkpoints/last -> 000012000                the newest
    OUT/checkpoints/best -> 000009000                the one after the best returns

A checkpoint is written to a temporary folder, synced, and renamed; the links are replaced in one step. No pickle is
ever read, and no code is imported that only state.json names. bfloat16 tensors are kept as their bits (U16).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError
from safetensors.numpy import save_file

from rtcore.errors import ConfigError
from rtcore.files.outside import (
    SUMS,
    check_bytes,
    has_sums,
    is_there,
    open_regular,
    parse_object,
    read_bytes,
    write_sums,
)
from rtcore.files.strict_json import dumps
from rtcore.scheduling.dispatch import COMMITTED_TICKS

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
LAST, BEST = "last", "best"
FOLDER = "checkpoints"
_TEMPORARY = ".writing-"
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "U64": np.uint64,
    "I32": np.int32,
    "U32": np.uint32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
#: Of a safetensors file: as the library itself has it.
_MOST_HEADER_BYTES = 100_000_000
#: How files that are no safetensors begin.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class _PolicyOfState(BaseModel):
    """What is checked of state.json's `policy`: the types of what it has. Its values are checked with the config's."""

    policy: str = ""
    policy_args: dict[str, Any] = Field(default_factory=dict)
    obs_history: NonNegativeInt = 0
    obs_every: PositiveInt = 1
    act_history: NonNegativeInt = 0
    chunk: PositiveInt = 1
    chunk_rest: str = "own"
    policy_extras: dict[str, Any] = Field(default_factory=dict)
    context_ticks: PositiveInt = COMMITTED_TICKS


class _State(BaseModel):
    """What is checked of state.json."""

    updates: NonNegativeInt = Field(lt=1 << 62)
    ticks: NonNegativeInt = Field(lt=1 << 62)
    episodes: NonNegativeInt = Field(lt=1 << 62)
    world: dict[str, Any]
    policy: _PolicyOfState
    config: dict[str, Any] = Field(default_factory=dict)
    best_mean_return: float | None = None


@dataclass(frozen=True)
class SavedState:
    """A checkpoint that learning can go on from."""

    folder: Path
    weights: dict[str, Array]
    optimizer: dict[str, Array]
    state: dict[str, Any]

    @property
    def origin(self) -> dict[str, Any]:
        """What a run that goes on from it says of that: where it is, and what was done before, in all."""
        counts = {name: self.state[name] for name in ("ticks", "updates", "episodes")}
        return {"from": str(self.folder), "before": counts}

    def is_of(self, out: Path) -> bool:
        """Whether it is among the checkpoints of the run in `out`."""
        return self.folder.resolve().parent == (out / FOLDER).resolve()


class CheckpointFolder:
    """Where a run keeps its checkpoints. Used by one thread. OSError if something cannot be written."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def set_aside(self) -> Path | None:
        """Move the checkpoints of an earlier run out of the way; returns where they are now, if there were any."""
        if not any(self.folder.glob("[0-9]*")):
            return None
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}-{number}")).exists():
            number += 1
        self.folder.rename(aside)
        return aside

    def write(self, weights: Arrays, optimizer: Arrays, state: Mapping[str, Any], *, is_best: bool = False) -> Path:
        """A new checkpoint, named after `state["updates"]`; the oldest ones beyond `keep` go, never the best.

        If it fails, OSError, and everything is as before.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{_TEMPORARY}[0-9]*"):
            shutil.rmtree(left, ignore_errors=True)  # by a run that was killed while it wrote
        temporary = self.folder / f"{_TEMPORARY}{os.getpid()}"
        try:
            temporary.mkdir()
            _save(weights, temporary / MODEL)
            _save(optimizer, temporary / OPTIMIZER)
            (temporary / STATE).write_text(dumps(state, indent=1) + "\n")
            write_sums(temporary, (MODEL, OPTIMIZER, STATE))
            for file in temporary.iterdir():
                _sync(file)
            _sync(temporary)
            folder = self._free_name(int(state["updates"]))
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._link(LAST, folder)
        if is_best:
            self._link(BEST, folder)
        _sync(self.folder)
        self._remove_old()
        return folder

    def _free_name(self, updates: int) -> Path:
        """Of several with the same number of updates (the end of a run, a resumed one) none is overwritten."""
        folder, number = self.folder / f"{updates:09d}", 1
        while folder.exists():
            folder = self.folder / f"{updates:09d}-{number}"
            number += 1
        return folder

    def _link(self, name: str, folder: Path) -> None:
        temporary = self.folder / f"{_TEMPORARY}{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.name)
        temporary.replace(self.folder / name)

    def _remove_old(self) -> None:
        """By the time they were written: a run may go on from one that is not the newest."""
        kept = [folder for folder in self.folder.glob("[0-9]*") if (folder / STATE).exists()]
        kept.sort(key=lambda folder: (folder / STATE).stat().st_mtime_ns)
        linked = {(self.folder / name).resolve() for name in (LAST, BEST)}
        for folder in kept[: -self._keep]:
            if folder.resolve() not in linked:
                shutil.rmtree(folder, ignore_errors=True)


# -- reading -----------------------------------------------------------------------------------------------------


def load_weights(path: Path, what: str = "policy-checkpoint") -> dict[str, Array]:
    """The network's tensors by name, from a safetensors file, a checkpoint, or a run's folder (its last checkpoint).

    ConfigError, naming `what`, if there is none, if it is cut off or no safetensors file, or holds a NaN.
    """
    return _read(_find(path, what, MODEL), what)


def load_state(path: Path, what: str = "resume") -> SavedState:
    """A whole checkpoint, from its folder or a run's (its last checkpoint). ConfigError as for `load_weights`."""
    folder = _find(path, what, STATE).parent
    return SavedState(folder, _read(folder / MODEL, what), _read(folder / OPTIMIZER, what), read_state(folder, what))


def read_state(path: Path, what: str = "resume") -> dict[str, Any]:
    """The counters of a checkpoint alone (state.json). ConfigError if it is damaged, or not what rtcore writes."""
    file = _find(path, what, STATE)
    raw = read_bytes(file, what)
    check_bytes(raw, file, what)
    state = parse_object(raw, file, what)
    try:
        _State.model_validate(state)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise ConfigError(f"{what}: {file} is not what rtcore wrote ({problems}); use another checkpoint") from error
    return state


def unchecked(path: Path, what: str) -> str:
    """A warning about weights without checksums, whose damage would not be noticed; "" where there are checksums."""
    file = _find(path, what, MODEL)
    if has_sums(file):
        return ""
    return f"{what}: {file} has no {SUMS} beside it: damage would not be noticed"


def find_state(path: Path, what: str) -> dict[str, Any] | None:
    """The counters beside the weights at `path`; None where there are only weights. ConfigError: see `read_state`."""
    folder = find_state_folder(path, what)
    return read_state(folder, what) if folder is not None else None


def find_state_folder(path: Path, what: str) -> Path | None:
    """The checkpoint that `path` means: itself, the file's beside it, or the last one of a run; None: just weights."""
    is_a_file = is_there(path, what) and path.is_file()
    for folder in (path.parent,) if is_a_file else (path, path / LAST, path / FOLDER / LAST):
        if is_there(folder / STATE, what):
            return folder
    return None


def _find(path: Path, what: str, name: str) -> Path:
    """File `name` of what `path` is: a file itself (weights only), a checkpoint, a folder of them, or a run's."""
    if not is_there(path, what):
        raise ConfigError(
            f"{what}: there is no {path}; expected a checkpoint, or a run's folder with {FOLDER}/{LAST} in it"
        )
    if path.is_file():
        if name == MODEL:
            return path
        raise ConfigError(f"{what}: {path} is a file; expected a checkpoint's folder, as learning needs its optimizer")
    for folder in (path, path / LAST, path / FOLDER / LAST):
        if is_there(folder / name, what):
            return folder / name
    raise ConfigError(
        f"{what}: {path} holds no checkpoint; expected {name} in it, or in {FOLDER}/{LAST} below it (a run that "
        "learned leaves one in its --out folder)"
    )


def _read(file: Path, what: str) -> dict[str, Array]:
    with open_regular(file, what) as opened:
        size = os.fstat(opened.fileno()).st_size
        head = opened.read(8)
        # If the first bytes cannot be those of a safetensors file, the rest is not read.
        is_plausible = 2 <= int.from_bytes(head, "little") <= min(size, _MOST_HEADER_BYTES)
        raw = head + (opened.read(size - len(head)) if is_plausible else b"")
    if is_plausible:
        check_bytes(raw, file, what)
    if raw.startswith(_PICKLES):
        raise ConfigError(
            f"{what}: {file} is a pickle (as torch.save writes it), which can run anything when it is read; expected "
            'safetensors. If you trust it, convert it: python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{file.name}', weights_only=True), 'model.safetensors')\""
        )
    try:
        entries = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
        arrays = {name: _array(entry) for name, entry in entries}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{what}: {file} ({size:,} bytes) is cut off or no safetensors file: {error}; use another checkpoint"
        ) from error
    bad = [name for name, array in arrays.items() if array.dtype.kind in "fc" and np.isnan(array).any()]
    if bad:
        raise ConfigError(
            f"{what}: {file} holds NaN in {', '.join(bad[:3])}{' and more' if len(bad) > 3 else ''}; it was written "
            "after learning had failed. Use an older checkpoint"
        )
    return arrays


def _array(entry: Mapping[str, Any]) -> Array:
    return np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _save(arrays: Arrays, file: Path) -> None:
    with _as_os_error(file):
        # Not `ascontiguousarray`: it makes a vector of a scalar.
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, file)


@contextlib.contextmanager
def _as_os_error(file: Path) -> Iterator[None]:
    """Raise what safetensors raises for a full disk as an OSError."""
    try:
        yield
    except safetensors.SafetensorError as error:
        raise OSError(0, str(error), str(file)) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
