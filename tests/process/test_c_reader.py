"""The C reader, compiled and run beside real runs; its header against the layout it was made from."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtcore.memory.layout import ENV_HISTOGRAMS, WORKER_HISTOGRAMS, Layout
from rtcore.memory.segments import attach_segment, create_segment, new_run_id, unlink_all
from tests.support.drills import rows_in, run_id_of, segments, started, stopped, wait_for
from tools.layoutdoc import RECORDS
from tools.layoutheader import OFFSETS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(
        shutil.which("cc") is None or shutil.which("make") is None, reason="needs a C compiler and make"
    ),
]

FOLDER = Path(__file__).parents[2] / "examples" / "c_reader"
SMALL = Layout(max_workers=3, ring_slots=4, log_slots=2, frame_bytes=100, action_bytes=8, chunk=3, trace_slots=5)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by its own Makefile, with warnings as errors."""
    folder = tmp_path_factory.mktemp("c_reader")
    for name in ("reader.c", "rtcore_layout.h", "Makefile"):
        shutil.copy(FOLDER / name, folder)
    built = subprocess.run(
        ["make", "-C", str(folder), "CFLAGS=-O2 -pedantic -Wconversion -Wshadow"],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "-Wall -Wextra -Werror" in built.stdout
    return folder / "reader"


@pytest.fixture
def run_id() -> Iterator[str]:
    run_id = new_run_id()
    yield run_id
    unlink_all(run_id)


class Run:
    """A real `rtcore-run` of its own, ended at the end of the test."""

    def __init__(self, out: Path, *options: str) -> None:
        self.out = out
        command = [sys.executable, "-m", "rtcore.cli.run", "--no-live", "--no-pictures", "--out", str(out), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def id(self) -> str:
        """As soon as its control segment is whole."""
        ending = "-description"
        wait_for(lambda: any(name.endswith(ending) for name in segments(self.process.pid)), "the run to come up")
        return run_id_of(self.process)

    def wait_for_rows(self, count: int) -> None:
        """Until there are so many more."""
        file = self.out / "actions.csv"
        before = rows_in(file)
        wait_for(lambda: rows_in(file) >= before + count, f"{count} rows")

    def rows(self) -> list[dict[str, str]]:
        """actions.csv, once the run has been told to end."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=150)
        assert self.process.returncode == 128 + signal.SIGINT, output
        with (self.out / "actions.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    runs: list[Run] = []

    def begin(*options: str) -> Run:
        runs.append(Run(tmp_path / f"run{len(runs)}", *options))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
        if run.process.stdout is not None and not run.process.stdout.closed:
            run.process.communicate(timeout=150)


def call(reader: Path, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(reader), *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def printed(output: str) -> list[dict[str, str]]:
    lines = [line.split() for line in output.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


RUN = (
    *("--duration", "600", "--env-id", "CartPole-v1", "--fps", "50"),
    *("--policy", "random", "--policy-args", "pad_ms=40", "--workers", "2"),
)


def test_the_reader_prints_every_tick_of_a_run_as_the_run_records_it(reader: Path, start: Any) -> None:
    run = start(*RUN)
    with started(str(reader), "-a", run.id(), stderr=subprocess.PIPE) as watching:
        run.wait_for_rows(100)
        rows = run.rows()
        output, errors = watching.communicate(timeout=150)
    assert watching.returncode == 0, errors
    frames = printed(output)
    assert len(rows) >= 100
    assert [frame["tick"] for frame in frames] == [row["tick"] for row in rows]
    for frame, row in zip(frames, rows, strict=True):
        assert (frame["kind"], frame["source"]) == (row["kind"], row["source"])
        assert float(frame["reward"]) == pytest.approx(float(row["reward"]), rel=1e-5)
        assert float(frame["lateness_us"]) == pytest.approx(float(row["lateness_us"]), abs=0.11)
        assert frame["worker"].replace("-", "") == row["worker"]
        assert frame["delay"].replace("-", "") == row["delay_ticks"]
    assert {frame["worker"] for frame in frames} == {"-", "0", "1"}, "both workers acted, and not always"
    assert f"{len(rows)} frames, 0 lapped" in errors


def test_a_reader_that_was_away_for_a_whole_ring_counts_what_it_lost(reader: Path, start: Any) -> None:
    run = start(*RUN, "--ring-slots", "16")
    with started(str(reader), run.id(), stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        first = [watching.stdout.readline() for _ in range(3)]
        with stopped(watching.pid):
            run.wait_for_rows(60)
        run.wait_for_rows(20)
        rows = run.rows()
        rest, errors = watching.communicate(timeout=150)
    frames = printed("".join(first) + rest)
    count, lapped = (int(word) for word in errors.splitlines()[-1].removeprefix("reader: ").split()[::2])
    assert count == len(frames)
    assert lapped > 16
    recorded = {row["tick"]: row["kind"] for row in rows}
    # The program too loses ticks of so small a ring, if it is kept from a CPU.
    assert all(recorded.get(frame["tick"], frame["kind"]) == frame["kind"] for frame in frames), "what it did print"
    assert {frame["tick"] for frame in frames} & recorded.keys()
    assert len(frames) + lapped >= sum(int(row["tick"]) >= int(frames[0]["tick"]) for row in rows)


def test_a_count_ends_the_reader_and_not_the_run(reader: Path, start: Any) -> None:
    run = start(*RUN)
    watched = call(reader, "-n", "5", run.id())
    assert watched.returncode == 0
    assert len(printed(watched.stdout)) == 5
    run.wait_for_rows(50)
    assert run.process.poll() is None, "the run goes on"
    run.rows()


def test_from_the_oldest_frame_on_the_past_is_printed_too(reader: Path, start: Any) -> None:
    run = start(*RUN)
    run_id = run.id()
    assert call(reader, "-n", "50", run_id).returncode == 0, "by then 50 ticks are past"
    again = call(reader, "-a", "-n", "20", run_id)
    assert [frame["tick"] for frame in printed(again.stdout)][:1] == ["0"]
    late = call(reader, "-n", "1", run_id)
    assert int(printed(late.stdout)[0]["tick"]) >= 50
    run.rows()


def test_of_several_runs_one_is_to_be_chosen(reader: Path) -> None:
    run_ids = [new_run_id(), new_run_id()]
    try:
        for run_id in run_ids:
            create_segment(run_id, "control", SMALL)
        refused = call(reader)
    finally:
        for run_id in run_ids:
            unlink_all(run_id)
    assert refused.returncode == 1
    assert all(f"  reader {run_id}\n" in refused.stderr for run_id in run_ids)


def test_the_reader_ends_with_a_killed_run(reader: Path, start: Any) -> None:
    run = start(*RUN)
    with started(str(reader), run.id(), stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.stdout.readline()
        run.process.kill()
        _, errors = watching.communicate(timeout=150)
    assert watching.returncode == 0
    assert "lapped" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("no-such-run",), 1, "no run no-such-run"),
        (("-n", "0"), 2, "expected a whole number of at least 1"),
        (("-n", "5x"), 2, "expected a whole number of at least 1"),
        (("a", "b"), 2, "expected one run id, got 2"),
        (("../../etc/passwd",), 2, "expected one as in"),
        (("-x",), 2, "usage:"),
    ],
)
def test_wrong_usage_is_explained(reader: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    refused = call(reader, *arguments)
    assert refused.returncode == code
    assert message in refused.stderr
    assert refused.stdout == ""


def test_help_teaches(reader: Path) -> None:
    shown = call(reader, "-h")
    assert shown.returncode == 0
    assert "examples:" in shown.stdout


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("magic", 7, "magic is 0x7"),
        ("layout_version", 99, "layout version 99, this reader knows"),
        ("size_bytes", 1, "its header says 1"),
        ("max_workers", 4, "do not fit their headers"),
    ],
)
def test_memory_of_another_layout_is_refused(reader: Path, run_id: str, field: str, value: int, message: str) -> None:
    for part in ("control", "ring"):
        segment = create_segment(run_id, part, SMALL)  # type: ignore[arg-type]
        at = 8 * RECORDS["SEGMENT_HEADER"].index[field]
        segment.buf[at : at + 8] = value.to_bytes(8, "little")
    refused = call(reader, run_id)
    assert refused.returncode == 1
    assert message in refused.stderr


def test_a_run_that_ended_before_it_began_is_not_waited_for(reader: Path, run_id: str) -> None:
    for part in ("control", "ring"):
        create_segment(run_id, part, SMALL)  # type: ignore[arg-type]
    control = attach_segment(run_id, "control", SMALL)
    at = SMALL.env_status_at + 8 * RECORDS["ENV_STATUS"].index["finished"]
    control.buf[at] = 1
    over = call(reader, run_id)
    assert over.returncode == 1
    assert "is over already" in over.stderr


def test_the_header_gives_the_offsets_that_python_uses(tmp_path: Path) -> None:
    """Every function of the header, every field's place, against `Layout` and the records."""
    samples: list[tuple[str, int]] = []
    for offset in OFFSETS:
        attribute = getattr(Layout, offset.name, None)
        if attribute is None:
            continue  # a step on the way, not part of Layout; those after it depend on it
        for numbers in ((), (0,), (2,), (1, 0), (2, 1)):
            if len(numbers) != len(offset.parameters):
                continue
            arguments = ", ".join(["&h", *map(str, numbers)])
            samples.append((f"rtcore_{offset.name}({arguments})", _python_offset(offset.name, numbers)))
    for record in RECORDS.values():
        struct = f"struct rtcore_{record.name.replace(' ', '_')}"
        samples += [(f"offsetof({struct}, {field})", 8 * record.index[field]) for field in record.fields]
        samples.append((f"sizeof({struct})", record.num_bytes))
    assert len(samples) > 150
    sizes = ", ".join(f".{field} = {value}" for field, value in SMALL.to_json().items())
    prints = "\n".join(f'    printf("%lld\\n", (long long)({expression}));' for expression, _ in samples)
    (tmp_path / "offsets.c").write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "rtcore_layout.h"\nint main(void) {{\n    struct rtcore_segment_header h = {{{sizes}}};\n'
        f"{prints}\n    return 0;\n}}\n"
    )
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", str(FOLDER), "-o", "offsets", "offsets.c"],
        cwd=tmp_path,
        check=True,
        timeout=150,
    )
    output = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True, timeout=150).stdout
    assert [int(line) for line in output.splitlines()] == [expected for _, expected in samples]


def _python_offset(name: str, numbers: tuple[int, ...]) -> int:
    if name == "env_histogram_at":
        return SMALL.env_histogram_at(ENV_HISTOGRAMS[numbers[0]])
    if name == "worker_histogram_at":
        return SMALL.worker_histogram_at(numbers[0], WORKER_HISTOGRAMS[numbers[1]])
    attribute = getattr(SMALL, name)
    value: int = attribute(*numbers) if callable(attribute) else attribute
    return value
