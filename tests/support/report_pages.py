"""Report pages of simulated runs, as their readers see them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rtcore.cli.report import main as report
from rtcore.config.run import make_config
from rtcore.files.strict_json import write_json
from rtcore.results.out_folder import write_config
from rtcore.virtual.simulate import Simulation

FEW = {"latency": "lognormal:90,0.15", "workers": 7, "ticks": 400}


def simulated(folder: Path, **fields: Any) -> Path:
    """A run on the virtual clock, with the files that `rtcore-run --out` writes (no picture)."""
    config = make_config(
        clock="virtual", policy="synthetic", policy_args={"latency_ms": 100}, out=folder, **FEW | fields
    )
    write_config(folder, config, ["rtcore-run", "--out", str(folder)])
    simulation = Simulation(config)
    simulation.run()
    simulation.close()
    write_json(folder / "summary.json", simulation.summary())
    return folder


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        report([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


class Visible(HTMLParser):
    """The text that a reader sees, and every address the page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._hidden = False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag in ("script", "style")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)
