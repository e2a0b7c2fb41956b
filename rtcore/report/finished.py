"""What is made of a run's rows and numbers once it is over: summary.json, timeline.png, the Perfetto trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from rtcore.errors import RtcoreError
from rtcore.files.strict_json import write_json
from rtcore.report.bars import Bar
from rtcore.report.perfetto.writer import convert_folder
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunStats


def write_results(
    folder: Path, summary: dict[str, Any], stats: RunStats, record: RunRecord, *, pictures: bool = True
) -> None:
    """summary.json and, unless there are to be no `pictures`, timeline.png."""
    write_json(folder / "summary.json", summary)
    if pictures:
        from rtcore.report.timeline import draw_timeline  # noqa: PLC0415 - matplotlib takes a second to import

        draw_timeline(record, stats, folder / "timeline.png")


def write_trace(folder: Path, console: Console) -> bool:
    """Make the Perfetto trace of a run's events. False, having said why, if that failed: the events are kept then."""
    bar = Bar(TextColumn("trace    "), BarColumn(), TimeElapsedColumn(), console=console)
    try:
        with bar:
            task = bar.add_task("", total=1.0)
            path = convert_folder(folder, lambda share: bar.update(task, completed=share))
    except (RtcoreError, OSError) as error:
        console.print(f"trace     not written: {error}", markup=False, soft_wrap=True)
        if any(folder.glob("trace-*.events")):
            again = f"python -m rtcore.report.perfetto {folder}"
            console.print(f"          Its events are kept; {again} tries again", markup=False, soft_wrap=True)
        return False
    size_mb = path.stat().st_size / 1e6
    text = f"trace     {path} ({size_mb:.1f} MB): open it at https://ui.perfetto.dev"
    console.print(text, markup=False, soft_wrap=True)
    return True
