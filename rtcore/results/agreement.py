"""Whether what a run counted, the rows on disk and the recording agree; and if not, by how much and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: `end` of a recording that holds all of its run.
COMPLETE = "complete"


class RowCounts(NamedTuple):
    """What the record took in, and what of it is on disk (None: the run has no folder)."""

    ticks: int
    jobs: int
    booked_jobs: int
    ticks_on_disk: int | None
    jobs_on_disk: int | None


def check_books(
    counters: Mapping[str, int],
    rows: RowCounts,
    lost: Mapping[str, int],
    recording: Mapping[str, Any],
    *,
    broke_off: bool,
) -> dict[str, Any]:
    """summary.json's `books`. `counters`: of the env process, once it counts no more; `lost`: rows that it lapped.

    `counted - rows - lost` is the `difference`, 0 unless something was cut off: `reasons` says what, and `explained`
    whether that is known of all of it. `broke_off`: the world raised, or its process died, in the middle of a tick.
    """
    reasons: list[str] = []
    is_explained = True
    books: dict[str, Any] = {"agree": True}
    for what, seen, on_disk, frames, lost_frames in (
        ("ticks", rows.ticks, rows.ticks_on_disk, "frames", "lost_frames"),
        ("jobs", rows.jobs, rows.jobs_on_disk, "jobs", "lost_jobs"),
    ):
        counted, gone = counters[what], lost.get(f"lost_{what}", 0)
        books[what] = {"counted": counted, "rows": seen, "lost": gone, "difference": counted - seen - gone}
        if gone:
            reasons.append(f"{gone} rows of {what} were overwritten before they were read")
        if books[what]["difference"]:
            is_explained &= broke_off
            reasons.append(_cut_off(what, counted - seen - gone, broke_off))
        if on_disk is not None:
            books[what]["on_disk"] = on_disk
            if on_disk != seen:
                reasons.append(f"{seen - on_disk} rows of {what} did not reach the disk")
        if recording:
            kept, missed = recording[frames], recording[lost_frames]
            books[what] |= {"recorded": kept, "lost_recorded": missed}
            # The recorder and the rows are two readers of the same rings.
            if kept + missed != seen + gone or missed:
                reasons.append(f"the recording holds {kept} of {seen + gone} {what} ({recording['end'] or COMPLETE})")
    unresolved = rows.booked_jobs - rows.jobs
    if unresolved and not lost.get("lost_ticks") and not lost.get("lost_jobs"):
        books["jobs"]["without_end"] = unresolved
        is_explained &= broke_off
        ended = "that were booked have no row" if unresolved > 0 else "have a row, and no tick that booked them"
        reasons.append(f"{abs(unresolved)} jobs {ended}: {_why(broke_off)}")
    return books | {"agree": not reasons, "explained": is_explained, "reasons": reasons}


def _cut_off(what: str, difference: int, broke_off: bool) -> str:
    if difference > 0:
        return f"{difference} {what} were counted and have no row: {_why(broke_off)}"
    return f"{-difference} {what} have a row and were not counted: {_why(broke_off)}"


def _why(broke_off: bool) -> str:
    return "the run broke off in the middle of a tick" if broke_off else "not known: a fault of rtcore"
