"""Pictures without a display: figures drawn straight to PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def new_figure(width_in: float = 9.0, height_in: float = 5.0) -> Any:
    """A matplotlib `Figure` that needs no display and no pyplot state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - half a second, only for --plot
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, folder: Path, name: str) -> Path:
    """Write `folder/name.png`; returns its path."""
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=120)
    return path
