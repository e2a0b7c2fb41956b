"""Colours of runs, outcomes and ticks, by name: the same in every picture, page, video and terminal.

They stay apart for colour-blind readers (Okabe and Ito), and on light and dark ground. Only Perfetto's page chooses its
own: it derives the colour of a slice from the slice's name.
"""

from __future__ import annotations

RUN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
#: By name of an `Outcome`, the worst last. On time is best; what nobody could help comes next.
OUTCOME_COLOURS = {
    "on_time": "#009E73",
    "features_used": "#0072B2",
    "unfinished": "#56B4E9",
    "stale_episode": "#9A9A9A",
    "superseded": "#CC79A7",
    "abstained": "#F0E442",
    "late": "#E69F00",
    "dropped_late": "#C9B800",
    "dropped_dead_worker": "#D55E00",
}
#: By name of a `TickKind`, the worst last; of ticks that never ran; of those with a head at which a worker's base
#: action stood in for the head's; and of those at which a person had the controls, whatever their kind.
KIND_COLOURS = {
    "acted": "#2A9D7C",
    "lead_in": "#B4B8BE",
    "reset": "#0072B2",
    "base": "#56B4E9",
    "human": "#CC79A7",
    "idle": "#E8C547",
    "missed": "#D55E00",
    "skipped": "#7A1FA2",
}
