"""What a killed recorder left, as a file like others, with its checksum and its view for Minari.

Or only these, where they are all that is missing. Copies the whole rows into a new file and puts it in the place of the
old one: nothing is lost if it is interrupted. Its end stays "unfinished".
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from rtcore.errors import ConfigError
from rtcore.files.outside import SUMS, write_sums
from rtcore.recording.hdf5 import new_file
from rtcore.recording.minari import write_minari
from rtcore.recording.reader import Recording
from rtcore.recording.schema import MINARI_FILES
from rtcore.recording.writer import failing_as_ours


def mend(path: Path) -> tuple[int, int]:
    """Mend the recording that `path` means, or make the view that it lacks; returns how many ticks and episodes it has.

    ConfigError if it is whole.

    Not while it is being written: that goes on in the old file, which has no name any more.
    """
    with Recording(path) as recording:
        if recording.is_finished:
            if all((recording.path.parent / name).exists() for name in (*MINARI_FILES, SUMS)):
                raise ConfigError(f"{recording.path}: is {recording.end}: there is nothing to mend")
            return recording.num_ticks, _make_the_rest(recording)
        draft = recording.path.with_suffix(".part")
        with failing_as_ours(draft):
            draft.unlink(missing_ok=True)
            try:
                _copy(recording, draft)
                draft.replace(recording.path)
            finally:
                with contextlib.suppress(OSError):
                    draft.unlink(missing_ok=True)
    with Recording(path, is_known=True) as recording:
        return recording.num_ticks, _make_the_rest(recording)


def _make_the_rest(recording: Recording) -> int:
    """Checksum and view; returns the number of episodes."""
    with failing_as_ours(recording.path):
        write_sums(recording.path.parent, [recording.path.name])
        return write_minari(recording)


def _copy(recording: Recording, draft: Path) -> None:
    with new_file(draft) as file:
        recording.copy_into(file)
        for name, value in (
            ("frames", recording.num_ticks),
            ("lost_frames", recording.lost_frames),
            ("jobs", recording.num_jobs),
            ("lost_jobs", recording.lost_jobs),
        ):
            file.attrs.modify(name, np.int64(value))
