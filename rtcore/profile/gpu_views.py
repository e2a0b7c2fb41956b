"""What `rtcore-profile gpu` found, as tables and pictures."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from rtcore.profile.gpu_crew import MPS_DAEMON
from rtcore.profile.results import Result, Row

Columns = tuple[tuple[str, str, int], ...]  #: heading, field, digits (of text: 0)

_COPIES: Columns = (
    ("direction", "direction", 0),
    ("memory", "memory", 0),
    ("bytes", "bytes", 0),
    ("p50 us", "p50_us", 1),
    ("p99 us", "p99_us", 1),
    ("event p50 us", "event_p50_us", 1),
    ("GB/s", "gb_per_s", 2),
)
_INFERENCE: Columns = (
    ("mode", "mode", 0),
    ("p50 us", "p50_us", 0),
    ("p99 us", "p99_us", 0),
    ("copy in p50", "h2d_p50_us", 1),
    ("compute p50", "compute_p50_us", 0),
    ("copy out p50", "d2h_p50_us", 1),
    ("the rest p50", "overhead_p50_us", 1),
)
_OVERLAP: Columns = (
    ("workers as", "how", 0),
    ("MPS", "mps", 0),
    ("k", "workers", 0),
    ("inferences/s", "inferences_per_s", 1),
    ("p50 us", "p50_us", 0),
    ("p99 us", "p99_us", 0),
    ("of perfect", "of_perfect_fraction", 3),
)
_ON_CPU = "CPUs in the place of a GPU: the same measuring code, and not a number about any GPU."


def show(result: Result, console: Console) -> None:
    """Three tables, and what has to be known beside them."""
    gpu = result.extra["gpu"]
    device = _ON_CPU if gpu is None else f"{gpu['name']}, {gpu['driver'] or 'driver not known'}, CUDA {gpu['cuda']}"
    console.print(device, markup=False, highlight=False)
    console.print(f"policy: {result.extra['policy']}", markup=False, highlight=False)
    for part, columns, title in (
        ("copy", _COPIES, "Copies"),
        ("inference", _INFERENCE, "One inference (us)"),
        ("overlap", _OVERLAP, "Workers side by side, without a pause"),
    ):
        console.print(_table([row for row in result.rows if row["part"] == part], columns, title))
    console.print(mps_advice(result.extra["mps"]), markup=False, highlight=False, end="")
    for note in result.extra["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def mps_advice(mps: str | None) -> str:
    """What was found of MPS (`executors.mps_status`) and how to change it; empty on a CPU."""
    if mps is None:
        return ""
    if mps == "MPS daemon running":
        return f"{mps} (end it: echo quit | {MPS_DAEMON}).\n"
    return (
        f"{mps}: processes take turns on the GPU. As the user who runs rtcore, `{MPS_DAEMON} -d` starts it and "
        f"`echo quit | {MPS_DAEMON}` ends it; --mps measures with one of its own.\n"
    )


def draw(result: Result, folder: Path) -> list[Path]:
    """`gpu-copies.png` and `gpu-overlap.png`; none if nothing was measured."""
    if not result.rows:
        return []
    from rtcore.profile.plots import new_figure, save  # noqa: PLC0415 - only for --plot

    where = "CPUs in the place of a GPU" if result.extra["gpu"] is None else str(result.extra["gpu"]["name"])
    figure = new_figure()
    axis = figure.add_subplot()
    for label, rows in _grouped(result.rows, "copy", ("direction", "memory")).items():
        axis.plot([row["bytes"] for row in rows], [row["p50_us"] for row in rows], "o-", label=label)
    axis.set(xscale="log", yscale="log", xlabel="bytes", ylabel="us, p50 by the host's clock", title=f"Copies: {where}")
    axis.grid(alpha=0.3)
    axis.legend()
    paths = [save(figure, folder, "gpu-copies")]

    figure = new_figure(11.0, 5.0)
    speed, latency = figure.subplots(1, 2)
    most = 1
    for label, rows in _grouped(result.rows, "overlap", ("how", "mps")).items():
        counts = [row["workers"] for row in rows]
        most = max(most, *counts)
        speed.plot(counts, [row["of_perfect_fraction"] * row["workers"] for row in rows], "o-", label=label)
        latency.plot(counts, [row["p50_us"] / 1e3 for row in rows], "o-", label=f"{label}, p50")
        latency.plot(counts, [row["p99_us"] / 1e3 for row in rows], ".--", label=f"{label}, p99")
    speed.plot([1, most], [1, most], "k:", label="perfect overlap")
    speed.plot([1, most], [1, 1], color="0.6", ls=":", label="taking turns")
    speed.set(xlabel="workers", ylabel="throughput, times that of one", title=f"Overlap: {where}")
    latency.set(xlabel="workers", ylabel="ms", title=f"One inference: {result.extra['policy']}")
    latency.set_ylim(bottom=0)
    for axis in (speed, latency):
        axis.grid(alpha=0.3)
        axis.legend()
    return [*paths, save(figure, folder, "gpu-overlap")]


def _grouped(rows: list[Row], part: str, fields: tuple[str, ...]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["part"] == part:
            words = [f"MPS {row[field]}" if field == "mps" else str(row[field]) for field in fields if row[field]]
            groups.setdefault(", ".join(words), []).append(row)
    return groups


def _table(rows: list[Row], columns: Columns, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(_cell(row.get(field), digits) for _, field, digits in columns))
    return table


def _cell(value: object, digits: int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return "-" if value is None else str(value)
