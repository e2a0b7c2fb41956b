"""Colours of runs, outcomes and ticks in pictures, by name.

They stay apart for colour-blind readers (Okabe and Ito), and on light and dark ground.
"""

from __future__ import annotations

RUN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
#: By name of an `Outcome`.
OUTCOME_COLOURS = {
    "on_time": "#009E73",
    "late": "#E69F00",
    "superseded": "#CC79A7",
    "stale_episode": "#9A9A9A",
    "dropped_dead_worker": "#D55E00",
    "dropped_late": "#C9B800",
    "unfinished": "#56B4E9",
}
#: By name of a `TickKind`; and of ticks that never ran.
KIND_COLOURS = {
    "acted": "#2A9D7C",
    "missed": "#D55E00",
    "idle": "#E8C547",
    "lead_in": "#B4B8BE",
    "reset": "#0072B2",
    "skipped": "#7A1FA2",
}
