"""Checkpoints: what is read is what was written, what is broken is named, what was good stays."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rtcore.config.run import make_config
from rtcore.errors import ConfigError, RtcoreError
from rtcore.files.outside import SUMS
from rtcore.learn.checkpoint import (
    BEST,
    LAST,
    MODEL,
    OPTIMIZER,
    STATE,
    CheckpointFolder,
    find_state,
    load_state,
    load_weights,
)
from rtcore.learn.checkpointer import Checkpointer, Snapshot
from rtcore.learn.optimizer import flatten_optimizer, unflatten_saved
from rtcore.learn.resuming import settings_of
from rtcore.learn.state import state_of, warn_of_changes, warn_of_unchecked
from rtcore.memory.master import MasterCopy
from rtcore.memory.tensors import ParamManifest, ParamTensor
from rtcore_workers.policies.choice import resolve_policy
from tests.support.full_disks import files_no_longer_than

pytestmark = pytest.mark.unit

WEIGHTS = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "conv.bias": np.ones(2, np.float32)}
OPTIMIZER_ARRAYS = {f"{part}.{name}": array * 2 for part in ("exp_avg", "target") for name, array in WEIGHTS.items()}


def state(updates: int, **more: Any) -> dict[str, Any]:
    return {"updates": updates, "ticks": 7 * updates, "episodes": 3, "world": {}, "policy": {}, **more}


def write(folder: Path, updates: int = 100, *, keep: int = 3, is_best: bool = False) -> Path:
    return CheckpointFolder(folder, keep).write(WEIGHTS, OPTIMIZER_ARRAYS, state(updates), is_best=is_best)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.is_symlink())


def test_what_is_read_is_what_was_written_from_the_run_the_checkpoint_or_the_file(tmp_path: Path) -> None:
    written = write(tmp_path / "checkpoints", 12000)
    assert written.name == "000012000"
    for path in (tmp_path, tmp_path / "checkpoints", written, tmp_path / "checkpoints" / LAST, written / MODEL):
        weights = load_weights(path)
        assert set(weights) == set(WEIGHTS)
        assert all(np.array_equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    saved = load_state(tmp_path)
    assert saved.state["updates"] == 12000
    assert all(np.array_equal(saved.optimizer[name], OPTIMIZER_ARRAYS[name]) for name in OPTIMIZER_ARRAYS)


def test_torch_reads_the_model_as_a_state_dict_and_its_files_are_read_here(tmp_path: Path) -> None:
    tensors = load_file(write(tmp_path) / MODEL)
    assert torch.equal(tensors["conv.weight"], torch.from_numpy(WEIGHTS["conv.weight"]))
    save_file({"w": torch.ones(3), "half": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "own.safetensors")
    weights = load_weights(tmp_path / "own.safetensors")
    assert weights["w"].tolist() == [1, 1, 1]
    assert weights["half"].dtype == np.uint16, "bfloat16 as its bits"


def test_arrays_in_another_memory_order_are_written_as_they_look(tmp_path: Path) -> None:
    strided = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    CheckpointFolder(tmp_path, 1).write({"w": strided}, {}, state(1))
    assert np.array_equal(load_weights(tmp_path)["w"], strided)


def test_a_scalar_stays_one(tmp_path: Path) -> None:
    """Such as a learned temperature, or the count of a batch norm."""
    CheckpointFolder(tmp_path, 1).write({"scale": np.array(1.5, np.float32)}, {}, state(1))
    assert load_weights(tmp_path)["scale"].shape == ()


def test_what_a_run_left_that_was_killed_while_it_wrote_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".writing-1"
    left.mkdir()
    (left / MODEL).write_bytes(b"half")
    write(tmp_path, 5)
    assert names(tmp_path) == ["000000005"]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for updates in range(1, 8):
        write(tmp_path, updates, keep=2, is_best=updates == 2)
        os.utime(tmp_path / f"{updates:09d}" / STATE, ns=(0, updates * 10**9))
    assert names(tmp_path) == ["000000002", "000000006", "000000007"]
    assert (tmp_path / LAST).readlink() == Path("000000007")
    assert (tmp_path / BEST).readlink() == Path("000000002")


def test_a_second_checkpoint_of_the_same_update_leaves_the_first_alone(tmp_path: Path) -> None:
    first = write(tmp_path, 5)
    second = write(tmp_path, 5)
    assert first.is_dir()
    assert second.name == "000000005-1"
    assert (tmp_path / LAST).resolve() == second


def test_the_checkpoints_of_an_earlier_run_are_set_aside(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", 3)
    assert folder.set_aside() is None
    write(tmp_path / "checkpoints", 900)
    assert folder.set_aside() == tmp_path / "checkpoints-1"
    write(tmp_path / "checkpoints", 5)
    assert load_state(tmp_path).state["updates"] == 5
    assert load_state(tmp_path / "checkpoints-1").state["updates"] == 900


# -- broken ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, share: float) -> None:
    file = write(tmp_path) / MODEL
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * share)])
    (file.parent / SUMS).unlink()
    with pytest.raises(ConfigError, match=r"is cut off or no safetensors file"):
        load_weights(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_named_and_not_opened(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "net.pt"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    if zipped:
        torch.save({"w": torch.ones(2), "bomb": Bomb()}, file)
    else:
        file.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"is a pickle.*expected safetensors.*convert it: python -c"):
        load_weights(file)
    assert not (tmp_path / "exploded").exists()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy-checkpoint: there is no .*nowhere"):
        load_weights(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no checkpoint; expected model.safetensors"):
        load_weights(tmp_path)
    with pytest.raises(ConfigError, match=r"resume: .* is a file; expected a checkpoint's folder"):
        load_state(write(tmp_path) / MODEL)


def test_weights_with_a_nan_are_named(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, 1).write({"w": np.array([1, np.nan], np.float32)}, {}, state(1))
    with pytest.raises(ConfigError, match=r"holds NaN in w"):
        load_weights(tmp_path)


def test_a_state_that_is_not_ours_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / SUMS).unlink()
    good = state(3)
    for text, problem in (
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("3", "holds a int"),
        (json.dumps({"updates": 3}), "ticks: Field required; episodes: Field required; world: Field required"),
        (json.dumps(good | {"updates": "many"}), "updates: Input should be a valid integer"),
        (json.dumps(good | {"ticks": 2**70}), "ticks: Input should be less than"),
        (json.dumps(good | {"policy": {"policy_args": [1]}}), "policy.policy_args: Input should be a valid dict"),
    ):
        (folder / STATE).write_text(text)
        with pytest.raises(ConfigError, match=problem):
            load_state(tmp_path)


def test_any_bit_that_flips_in_a_checkpoint_is_found_out(tmp_path: Path) -> None:
    folder = write(tmp_path)
    rng = np.random.default_rng(1)
    for name in (MODEL, OPTIMIZER, STATE, SUMS):
        good = (folder / name).read_bytes()
        for _ in range(25):
            damaged = bytearray(good)
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
            (folder / name).write_bytes(damaged)
            with pytest.raises(ConfigError, match=r"damaged|no checksum of|cut off or no safetensors"):
                load_state(tmp_path)
        (folder / name).write_bytes(good)
    assert load_state(tmp_path).state["updates"] == 100


def test_the_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    answer = subprocess.run(["sha256sum", "-c", SUMS], cwd=write(tmp_path), capture_output=True, text=True, check=True)
    assert answer.stdout == f"{MODEL}: OK\n{OPTIMIZER}: OK\n{STATE}: OK\n"


def test_weights_without_checksums_are_used_with_a_word(tmp_path: Path, said: list[str]) -> None:
    folder = write(tmp_path)
    config = make_config(policy="mlp", policy_checkpoint=folder)
    warn_of_unchecked(config.weights)
    assert said == []
    (folder / SUMS).unlink()
    warn_of_unchecked(config.weights)
    assert len(said) == 1
    assert "has no SHA256SUMS beside it" in said[0]
    assert load_weights(folder).keys() == WEIGHTS.keys()


def test_a_checkpoint_chooses_no_code_unless_the_user_says_the_same(tmp_path: Path) -> None:
    named = {"policy": "evil:make", "policy_args": {}, "obs_history": 0, "act_history": 0}
    CheckpointFolder(tmp_path, 1).write(WEIGHTS, {}, state(1) | {"policy": named})
    for fields in ({"policy_checkpoint": tmp_path}, {"resume": tmp_path, "learn": "dqn"}):
        with pytest.raises(ConfigError, match=r"say so: --policy evil:make \(in a program: policy='evil:make'\)"):
            resolve_policy(make_config(**fields))
        assert resolve_policy(make_config(policy="evil:make", **fields)).agent.policy == "evil:make"
    in_a_world = {"world": {"env_id": "evil:world", "env_args": {}}, "policy": named | {"policy": "mlp"}}
    CheckpointFolder(tmp_path, 2).write(WEIGHTS, {}, state(2) | in_a_world)
    with pytest.raises(ConfigError, match=r"say so: --env-id evil:world \(in a program: env_id='evil:world'\)"):
        resolve_policy(make_config(policy_checkpoint=tmp_path))
    assert resolve_policy(make_config(policy_checkpoint=tmp_path, env_id="evil:world")).agent.policy == "mlp"
    # As a whole group, too, which only a program may give.
    CheckpointFolder(tmp_path, 3).write(WEIGHTS, {}, state(3) | {"config": {"world": {"env_id": "evil:world"}}})
    with pytest.raises(ConfigError, match="unknown key 'world'"):
        settings_of({"resume": tmp_path, "learn": "dqn"})
    assert "evil" not in sys.modules


def test_a_pipe_a_device_and_a_file_of_holes_are_not_read_as_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 40 << 30)
    for path, problem in ((tmp_path / "holes", r"\(42,949,672,960 bytes\) is cut off or no safetensors file"),):
        with pytest.raises(ConfigError, match=problem):
            load_weights(path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / MODEL).symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "checkpoint"):
        with pytest.raises(ConfigError, match=r"no ordinary file|holds no checkpoint"):
            load_weights(path)


def test_the_optimizer_of_another_network_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    other = ParamManifest.of([ParamTensor(("w",), (3,), (1,), "float32", "parameter", True)])
    with pytest.raises(ConfigError, match=r"has nothing for exp_avg.w; expected shape \(3,\)"):
        unflatten_saved(other, load_state(tmp_path))


def test_the_optimizer_comes_back_flat_as_it_was(tmp_path: Path) -> None:
    channels_last = ParamTensor(("a",), (2, 3), (1, 2), "float32", "parameter", True)
    manifest = ParamManifest.of([channels_last, ParamTensor(("b",), (5,), (1,), "float32", "parameter", True)])
    rng = np.random.default_rng(0)
    flat = []
    for _ in range(4):
        one = np.zeros(manifest.trainable_bytes // 4, np.float32)
        for tensor in manifest.tensors:
            manifest.array(one, tensor)[...] = rng.normal(size=tensor.shape)
        flat.append(one)
    copy = MasterCopy(9, *flat)
    CheckpointFolder(tmp_path, 1).write({}, flatten_optimizer(manifest, copy), state(9))
    back = unflatten_saved(manifest, load_state(tmp_path))
    for part in ("exp_avg", "exp_avg_sq", "target"):
        assert np.array_equal(back[part], getattr(copy, part)), part


# -- a full disk -------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_once_and_counted_and_the_old_checkpoint_stays(tmp_path: Path, said: list[str]) -> None:
    large = {"w": np.zeros(100_000, np.float32)}
    updates = iter(range(1, 100))
    keeper = Checkpointer(CheckpointFolder(tmp_path, 3), 60, lambda: Snapshot(large, {}, state(next(updates)), None))
    keeper.write()
    with files_no_longer_than(50_000):
        keeper.write()
        keeper.write()
    assert (keeper.written, keeper.failed) == (1, 2)
    assert len(said) == 1
    assert "could not be written" in said[0]
    assert names(tmp_path) == ["000000001"], "no half of one is left"
    assert load_state(tmp_path).state["updates"] == 1
    keeper.write()
    assert load_state(tmp_path).state["updates"] == 4


@pytest.mark.parametrize("written", [True, False])
def test_a_last_checkpoint_that_cannot_be_written_is_a_loss_and_said_as_one(
    tmp_path: Path, said: list[str], written: bool
) -> None:
    large = {"w": np.zeros(100_000, np.float32)}
    updates = iter([12, 15, 22])
    keeper = Checkpointer(CheckpointFolder(tmp_path, 3), 60, lambda: Snapshot(large, {}, state(next(updates)), None))
    if written:
        keeper.write()
    with files_no_longer_than(50_000):
        keeper.write()
        assert keeper.lost == "", "there may be room for the next one"
        keeper.write(last=True)
    assert os.strerror(errno.EFBIG) in keeper.lost
    assert len(said) == 2
    since = "the newest one, of 12 updates," if written else "the run began"
    assert f"What was learned since {since} is lost" in said[1]


def test_nothing_is_lost_if_the_newest_checkpoint_has_all_updates_already(tmp_path: Path) -> None:
    large = {"w": np.zeros(100_000, np.float32)}
    keeper = Checkpointer(CheckpointFolder(tmp_path, 3), 60, lambda: Snapshot(large, {}, state(22), None))
    keeper.write()
    with files_no_longer_than(50_000):
        keeper.write(last=True)
    assert (keeper.failed, keeper.lost) == (1, "")


def test_whatever_goes_wrong_with_a_checkpoint_is_counted_and_said_and_the_next_one_is_written(
    tmp_path: Path, said: list[str]
) -> None:
    flaws = iter([ValueError("a shape"), RuntimeError("no master"), None])

    def take() -> Snapshot:
        flaw = next(flaws)
        if flaw is not None:
            raise flaw
        return Snapshot(WEIGHTS, {}, state(3), None)

    keeper = Checkpointer(CheckpointFolder(tmp_path, 3), 60, take)
    for _ in range(3):
        keeper.write()
    assert (keeper.written, keeper.failed) == (1, 2)
    assert len(said) == 1
    assert "ValueError: a shape" in said[0]


@pytest.mark.parametrize("field", ["learning_rate", "max_grad_norm", "updates_per_tick", "learn_latency_ms"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_setting_of_learning_that_is_not_finite_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field.replace("_", "[-_]")):
        make_config(learn="dqn", policy="mlp", **{field: value})


def test_the_best_is_the_one_after_the_best_returns(tmp_path: Path) -> None:
    returns = iter([None, 3.0, 9.0, 4.0])
    updates = iter([1, 2, 3, 4])
    keeper = Checkpointer(
        CheckpointFolder(tmp_path, 1),
        60,
        lambda: Snapshot(WEIGHTS, {}, state(next(updates)), next(returns)),
        best_return=5.0,
    )
    for _ in range(4):
        keeper.write()
    assert names(tmp_path) == ["000000003", "000000004"]
    assert load_state(tmp_path / BEST).state["best_mean_return"] == 9.0
    assert load_state(tmp_path / LAST).state["best_mean_return"] == 9.0


def test_a_mean_that_is_not_finite_is_not_the_best_for_ever(tmp_path: Path) -> None:
    returns, updates = iter([np.nan, 3.0, np.inf]), iter([1, 2, 3])
    keeper = Checkpointer(
        CheckpointFolder(tmp_path, 3), 60, lambda: Snapshot(WEIGHTS, {}, state(next(updates)), next(returns))
    )
    for _ in range(3):
        keeper.write()
    assert keeper.best_return == 3.0
    assert (tmp_path / BEST).readlink() == Path("000000002")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_only_at_the_end_is_said_with_an_infinite_time(tmp_path: Path) -> None:
    keeper = Checkpointer(CheckpointFolder(tmp_path, 9), float("inf"), lambda: Snapshot(WEIGHTS, {}, state(5), None))
    keeper.start()
    keeper.stop()
    assert names(tmp_path) == ["000000005"]


def test_a_file_of_weights_is_described_by_what_is_beside_it_alone(tmp_path: Path) -> None:
    written = write(tmp_path / "checkpoints")
    assert find_state(written / MODEL, "policy-checkpoint") is not None
    own = tmp_path / "own.safetensors"
    shutil.copy(written / MODEL, own)
    assert find_state(own, "policy-checkpoint") is None, "the run's checkpoints are of another network"


def test_what_is_written_of_a_run_may_hold_paths_and_says_later_what_has_changed(
    tmp_path: Path, said: list[str]
) -> None:
    config = make_config(learn="dqn", policy="mlp", env_args={"rom": Path("own.gb")}, gamma=0.9)
    saved = state_of(config, {"observation": {}, "action": {}}, "mlp", updates=1, ticks=1, episodes=1)
    CheckpointFolder(tmp_path, 1).write(WEIGHTS, OPTIMIZER_ARRAYS, saved)
    warn_of_changes(config, load_state(tmp_path))
    assert said == []
    warn_of_changes(config.replace(gamma=0.99), load_state(tmp_path))
    assert len(said) == 1
    assert "gamma 0.99 (was 0.9)" in said[0]


def test_weights_for_a_policy_without_a_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy random has no network to play the weights with"):
        make_config(policy="random", policy_checkpoint=tmp_path)


def test_nothing_new_is_not_written_again_but_the_end_is(tmp_path: Path) -> None:
    keeper = Checkpointer(CheckpointFolder(tmp_path, 9), 60, lambda: Snapshot(WEIGHTS, {}, state(5), None))
    keeper.write()
    keeper.write()
    assert names(tmp_path) == ["000000005"]
    keeper.start()
    keeper.stop()
    assert names(tmp_path) == ["000000005", "000000005-1"]


def test_every_error_is_ours(tmp_path: Path) -> None:
    folder = write(tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(RtcoreError):
        load_state(tmp_path)
    assert not (folder / OPTIMIZER).exists()
