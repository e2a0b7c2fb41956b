"""Bad input gets an error that names the field or process, what was expected, and what to do."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.drills import Run, run_to_end

pytestmark = pytest.mark.fault

#: One worker: with several a network of one's own would be built on torch's meta device, whose import takes a second.
CARTPOLE = ("--env-id", "CartPole-v1", "--fps", "60", "--workers", "1", "--ticks", "300", "--no-live")
SYNTHETIC = ("--policy", "synthetic", "--policy-args", "latency_ms=10")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--polcy", "impala"], ["unknown option --polcy", "Did you mean", "policy"]),
        (["--workers", "0"], ["workers", "or auto", "'0'"]),
        (["--workers", "many"], ["workers", "whole number", "auto"]),
        (["--stagger", "maxtime"], ["stagger", "max-time"]),
        (["--fps", "fast"], ["fps", "rate in Hz"]),
        (["--fps", "0"], ["fps"]),
        (["--ring-slots", "4", "--workers", "7"], ["ring_slots=4", "workers=7"]),
        (["--env-id", "rtcore/Bloks-v0", *SYNTHETIC], ["rtcore/Bloks-v0", "Did you mean", "rtcore/Blocks-v0"]),
        (["--env-id", "NoSuchWorld-v3", *SYNTHETIC], ["NoSuchWorld-v3"]),
        (["--policy", "imapla"], ["imapla", "impala"]),
        (["--policy", "no_such_module:make"], ["no_such_module"]),
        (["--policy", "synthetic", "--policy-args", "latency=3"], ["latency", "latency_ms"]),
        (["--policy-args", "k=1,pad_ms=-5"], ["pad_ms"]),
        (["--config", "no_such_file.toml"], ["no_such_file.toml"]),
        (["--clock", "wall", "--latency", "constant:5"], ["latency", "virtual"]),
        (["--clock", "virtual", "--policy", "impala"], ["--latency", "pad_ms"]),
        (["--overrun", "wait"], ["overrun", "skip", "stretch"]),
        (["--env-args", "levle=3", *SYNTHETIC], ["levle", "Did you mean level"]),
        (["--env-args", "level=18", *SYNTHETIC], ["level=18", "from 0 to 17"]),
        (["--env-args", "level"], ["'level'", "NAME=VALUE"]),
        (["--env-id", "CartPole-v1", "--fps", "50", "--rom", "x.gb", *SYNTHETIC], ["takes no ROM", "leave --rom out"]),
        (["--noop-action", "99", *SYNTHETIC], ["noop-action", "99"]),
        (["--device", "cuda"], ["cuda", "cpu"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(run_here: Run, arguments: list[str], said: list[str]) -> None:
    done = run_here(*arguments, "--no-live")
    assert done.returncode not in (0, -9)
    for words in said:
        assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_typo_in_the_config_file_is_named(run_here: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("worker = 3\n")
    done = run_here("--config", str(file))
    assert done.returncode == 2
    assert "unknown key 'worker'" in done.stderr
    assert "'workers'" in done.stderr


@pytest.mark.parametrize(
    ("policy", "args", "said"),
    [
        ("mlp", "foo=1", ["policy-args", "'foo'", "hidden", "pad_ms"]),
        ("not_there.py:Net", "pad_ms=1", ["there is no file", "not_there.py"]),
    ],
)
def test_a_policy_that_is_not_there_or_is_not_called_so_is_a_wrong_setting(
    run_here: Run, policy: str, args: str, said: list[str]
) -> None:
    done = run_here(*CARTPOLE, "--policy", policy, "--policy-args", args)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("policy", "args", "said"),
    [
        # What is wrong from the first call on is refused while the policy is made: test_policies_network has each.
        ("raising", "after=0", ["made of cheese"]),
        ("raising", "after=20", ["made of cheese", "worker"]),
        pytest.param("not_a_number", "after=20", ["NaN"], marks=pytest.mark.slow),
        pytest.param("wrong_shape", "after=20", ["shape (1, 1)", "(1, 2)"], marks=pytest.mark.slow),
    ],
)
def test_a_policy_that_breaks_its_contract_ends_the_run(run_here: Run, policy: str, args: str, said: list[str]) -> None:
    done = run_here(*CARTPOLE, "--policy", f"tests.support.bad_policies:{policy}", "--policy-args", args)
    assert done.returncode == 1
    assert "PolicyError" in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


@pytest.mark.slow
def test_a_policy_that_never_returns_is_a_hang_at_start() -> None:
    """One that needs no torch, whose import alone may take as long as that on a busy machine."""
    never = ("--policy", "synthetic", "--policy-args", "latency_ms=3600000")
    done = run_to_end(*CARTPOLE, *never, "--startup-timeout-s", "20")
    assert done.returncode == 1
    assert "worker 0 was not ready within 20 s" in done.stderr


def test_a_policy_that_never_returns_is_a_hang_in_the_run(run_here: Run, tmp_path: Path) -> None:
    """It works for a while, then never again: restarted, it hangs at its first frame, and that is enough."""
    done = run_here(
        *CARTPOLE[:-3],
        *("--duration", "600", "--no-live", "--policy", "tests.support.bad_policies:sleeping"),
        *("--policy-args", f"after=120,then=2,mark={tmp_path / 'hung'}"),
        *("--hang-timeout-s", "1", "--max-restarts", "1", "--warmup", "1"),
    )
    assert done.returncode == 1
    assert "hung" in done.stderr
    assert "does the policy ever return?" in done.stderr


@pytest.mark.parametrize(
    ("world", "said"),
    [
        ("raising_world", ["fell through the floor", "step("]),
        ("raising_reset", ["raised in reset()", "the key does not fit"]),
        ("not_made", ["tests.support.bad_worlds:not_made could not be made", "no such robot"]),
        ("wrong_dtype_world", ["float64", "float32"]),
        ("wrong_part_world", ["part 'clock'", "(3,)", "(4,)"]),
        ("nan_reward_world", ["reward nan", "finite"]),
        ("float_frame", ["list", "array of shape (4,)"]),
    ],
)
def test_a_world_that_breaks_its_contract_ends_the_run(run_here: Run, world: str, said: list[str]) -> None:
    arguments = ("--env-id", f"tests.support.bad_worlds:{world}", *CARTPOLE[2:])
    done = run_here(*arguments, *SYNTHETIC)
    assert done.returncode == 1
    assert "EnvironmentFailed" in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


def test_a_dict_with_more_than_boxes_in_it_is_named_with_the_way_out(run_here: Run) -> None:
    done = run_here("--env-id", "tests.support.bad_worlds:discrete_part_world", *CARTPOLE[2:], *SYNTHETIC)
    assert done.returncode == 2
    for words in ("ConfigError", "'gear'", "Discrete(3)", "FlattenObservation"):
        assert words in done.stderr, done.stderr


def test_atari_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ale_py.py").write_text("raise ModuleNotFoundError('No module named ale_py')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run_to_end("--env-id", "rtcore/Atari-v0", "--no-live", *SYNTHETIC)
    assert done.returncode == 2
    assert "env-id 'rtcore/Atari-v0'" in done.stderr
    assert "pip install 'rtcore[atari]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_game_that_is_no_atari_game_is_answered_with_one_that_is(run_here: Run) -> None:
    pytest.importorskip("ale_py")
    done = run_here("--env-id", "rtcore/Atari-v0", "--env-args", "game=boxin", "--no-live", *SYNTHETIC)
    assert done.returncode == 2
    assert "got game='boxin'" in done.stderr
    assert "did you mean boxing" in done.stderr


@pytest.mark.parametrize(("steps", "where"), [(60, "in tick "), (4, "1 s in step 5 of 20 before tick 0")])
def test_a_world_that_never_returns_is_killed(run_here: Run, steps: int, where: str) -> None:
    """In the run, and in the steps that are timed before it."""
    arguments = ("--env-id", "tests.support.bad_worlds:hanging_world", "--env-args", f"after={steps}", *CARTPOLE[2:])
    done = run_here(*arguments, *SYNTHETIC, "--env-timeout-s", "1")
    assert done.returncode == 1
    assert "EnvironmentHung" in done.stderr
    assert where in done.stderr
    assert "--env-timeout-s" in done.stderr
    if steps == 60:
        assert re.search(r"bad_worlds\.py.* in step$", done.stderr, re.MULTILINE), "where it hangs"


def test_an_emulator_that_hangs_on_an_illegal_opcode_is_killed(run_here: Run, tmp_path: Path) -> None:
    rom = bytearray((files("rtcore_envs") / "roms" / "blocks.gb").read_bytes())
    rom[0x100] = 0xD3  # no such instruction: PyBoy's tick() never returns
    path = tmp_path / "hang.gb"
    path.write_bytes(rom)
    done = run_here(
        "--env-args", f"rom={path}", "--no-live", *SYNTHETIC, "--startup-timeout-s", "4", "--env-timeout-s", "0.2"
    )
    assert done.returncode == 1
    assert "the world rtcore/Blocks-v0 (being made) was not ready within 4 s and was killed" in done.stderr


@pytest.mark.parametrize("content", [None, b"", b"not a Game Boy program", bytes(range(256)) * 128])
def test_a_bad_rom_is_named(run_here: Run, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.gb"
    if content is not None:
        path.write_bytes(content)
    done = run_here("--env-args", f"rom={path}", "--no-live", *SYNTHETIC)
    assert done.returncode == 2
    assert "cannot use the ROM" in done.stderr
    assert "bad.gb" in done.stderr


def test_no_room_in_shared_memory_is_an_error_not_a_bus_error(run_here: Run) -> None:
    done = run_here("--ring-slots", "10000000", "--no-live", *SYNTHETIC)
    assert done.returncode == 1
    assert "no room in /dev/shm for the ring segment" in done.stderr
    assert "--ring-slots" in done.stderr


def test_a_world_that_cannot_be_reset_at_all_ends_the_run_before_it_begins(run_here: Run) -> None:
    done = run_here(
        "--env-id", "tests.support.bad_worlds:raising_reset", "--env-args", "after=1", *CARTPOLE[2:], *SYNTHETIC
    )
    assert done.returncode == 1
    assert "EnvironmentFailed: the world raised in reset(): RuntimeError: the key does not fit" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("world", "after"), [("raising_world", 100), ("raising_reset", 6)])
def test_what_was_recorded_before_a_failure_is_kept(world: str, after: int, tmp_path: Path) -> None:
    arguments = ("--env-id", f"tests.support.bad_worlds:{world}", "--env-args", f"after={after}", *CARTPOLE[2:])
    done = run_to_end(*arguments, *SYNTHETIC, "--out", str(tmp_path))
    assert done.returncode == 1
    rows = (tmp_path / "actions.csv").read_text().splitlines()
    assert len(rows) > 70
    assert "EnvironmentFailed" in (tmp_path / "summary.json").read_text()
