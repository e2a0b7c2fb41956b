"""A run's folder as tables, and what a notebook shows of a run: its numbers and a typical stretch of its stagger."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from rich.console import Console

from rtcore.errors import ConfigError, counted
from rtcore.report.table import headline
from rtcore.report.timeline import Stagger, build_stagger
from rtcore.results.folder import RunFolder, read_run
from rtcore.results.rows import INFERENCES, TICKS, RowFormat

_Table = Literal["ticks", "jobs"]
_FORMATS: dict[str, RowFormat[Any]] = {"ticks": TICKS, "jobs": INFERENCES}
_COLUMNS_OF_TEXT = 120


class LoadedRun(RunFolder):
    """A run's folder as tables. In a notebook it shows itself.

    Two tables: "ticks" (actions.csv, a row for each tick that ran) and "jobs" (jobs.csv, a row for each inference).
    Beside them `summary` (summary.json), `settings` (as the run used them), `about` (config.json: command, versions,
    machine) and `notes` (what is missing, in sentences).
    """

    def to_numpy(self, table: _Table) -> npt.NDArray[Any]:
        """A table for NumPy.

        Args:
            table: "ticks" or "jobs".

        Returns:
            A structured array, (rows,), with a field for each column. Where the file has an empty cell a number is -1,
            a text "", and a float NaN; `kind`, `source` and `outcome` are names.

        Raises:
            ConfigError: There is no such table.
        """
        return _format(table).table(self.ticks if table == "ticks" else self.jobs)

    def to_pandas(self, table: _Table) -> Any:
        """A table for pandas.

        Args:
            table: "ticks" or "jobs".

        Returns:
            A DataFrame with the columns of `to_numpy`; what they mean is in its `attrs["columns"]`.

        Raises:
            ConfigError: There is no such table, or pandas is not installed.
        """
        try:
            import pandas  # noqa: PLC0415 - an extra, and half a second to import
        except ImportError as error:
            raise ConfigError(
                "to_pandas needs pandas, which is not installed: pip install 'rtcore[notebook]'; to_numpy does without"
            ) from error
        frame = pandas.DataFrame(self.to_numpy(table))
        frame.attrs["columns"] = self.columns(table)
        return frame

    def columns(self, table: _Table) -> dict[str, str]:
        """What each column of a table means.

        Args:
            table: "ticks" or "jobs".

        Returns:
            A sentence for each, in their order.

        Raises:
            ConfigError: There is no such table.
        """
        return dict(_format(table).meanings)

    def __repr__(self) -> str:
        return f"<run in {self.path}: {counted(len(self.ticks), 'tick')}, {counted(len(self.jobs), 'inference')}>"

    def _repr_html_(self) -> str:
        return html_of(str(self.path), self.summary, Stagger.of_folder(self), self.notes)


def load_run(path: str | Path) -> LoadedRun:
    """Read a run that was kept, as tables for NumPy or pandas.

    What is missing or cannot be read (of a run that was killed, or goes on) is left out and told in `notes`.

    Args:
        path: Its folder: what `rtcore-run --out DIR` or `Runtime(..., out=DIR)` wrote.

    Returns:
        The run: `to_numpy` and `to_pandas` give its tables, `columns` says what is in them.

    Raises:
        ConfigError: No such folder, nothing of a run in it, or tables of another version.

    Examples:
        >>> import tempfile, rtcore
        >>> from rtcore.virtual.simulate import Simulation
        >>> folder = tempfile.TemporaryDirectory()
        >>> settings = {"env_id": "CartPole-v1", "policy": "synthetic", "policy_args": {"latency_ms": 50}, "workers": 3}
        >>> Simulation(rtcore.RuntimeConfig(**settings, clock="virtual", ticks=20, out=folder.name)).run().close()
        >>> run = rtcore.load_run(folder.name)
        >>> ticks = run.to_numpy("ticks")
        >>> ticks["delay_ticks"][ticks["kind"] == "acted"].tolist()[:3]
        [3, 3, 3]
        >>> run.columns("ticks")["lateness_us"]
        'how long after its deadline the tick began'
        >>> folder.cleanup()
    """
    run = read_run(Path(path))
    return LoadedRun(**{field.name: getattr(run, field.name) for field in fields(run)})


def html_of(title: str, summary: dict[str, Any], stagger: Stagger, notes: Sequence[str] = ()) -> str:
    """A run for a notebook: what matters most of its numbers, and a typical stretch as a picture.

    Args:
        title: What it is called.
        summary: As in summary.json; {}: there is none.
        stagger: What the picture is drawn from.
        notes: What a reader must know of it.

    Returns:
        A piece of HTML that needs nothing else.
    """
    parts = [f"<strong>{html.escape(title)}</strong>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    if summary:
        console = Console(record=True, file=io.StringIO(), width=_COLUMNS_OF_TEXT, force_jupyter=False)
        console.print(headline(summary))
        style = "font-family: monospace; line-height: 1.2; white-space: pre; overflow-x: auto"
        parts.append(console.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>'))
    if stagger.ticks:
        picture = io.BytesIO()
        build_stagger(stagger).savefig(picture, format="png", dpi=80)
        said = "workers over ticks, a bar for each inference, a dot where its action was applied"
        data = base64.b64encode(picture.getvalue()).decode()
        parts.append(f'<img style="max-width: 100%" alt="{said}" src="data:image/png;base64,{data}">')
    return "\n".join(parts)


def _format(table: str) -> RowFormat[Any]:
    if table not in _FORMATS:
        raise ConfigError(f"no table {table!r} in a run; expected one of {', '.join(_FORMATS)}")
    return _FORMATS[table]
