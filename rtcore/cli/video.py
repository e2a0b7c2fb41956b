"""The video of a recording on the command line: a bar with the time left, and what came of it in a line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rtcore.cli.exits import Stopped, signals_as_exceptions
from rtcore.errors import RtcoreError
from rtcore.recording.reader import Recording, fitting_together
from rtcore.report.bars import Bar
from rtcore.report.terminal import Terminal
from rtcore.report.video.encoder import require_av
from rtcore.report.video.film import VIDEO_FILE, Film, notes_of, video_file, write_video
from rtcore.results.out_folder import COMPARE_VIDEO, RANDOM, compared_in

_REFRESH_FRAMES = 16


def run_video(path: Path, max_ticks: int | None) -> int:
    """`rtcore-run --replay FILE --video`: all of it; the exit code. ConfigError if the file cannot be read."""
    require_av()
    console = Terminal()
    halves = {name: folder for name, folder in compared_in(path).items() if name != RANDOM}
    with ExitStack() as stack:
        recordings = {name: stack.enter_context(Recording(folder)) for name, folder in (halves or {"": path}).items()}
        for recording in recordings.values():
            for note in notes_of(recording):
                _say(console, note)
        out = path / COMPARE_VIDEO if halves else video_file(recordings[""].path)
        film = _draw(recordings, out, console, max_ticks)
    _show(console, film)
    return 0


def draw_video(folder: Path, console: Console) -> bool:
    """The video of the run in `folder`. False, having said why, if that failed: the recording is kept then.

    `Stopped` if a signal broke it off, also where one ended the run before.
    """
    return draw_videos({"": folder}, folder / VIDEO_FILE, console, f"rtcore-run --replay {folder} --video")


def draw_videos(folders: Mapping[str, Path], path: Path, console: Console, again: str) -> bool:
    """As `draw_video`, of the runs in several folders side by side, by their titles. `again`: what draws it later."""
    try:
        with signals_as_exceptions(), ExitStack() as stack:
            recordings = {name: stack.enter_context(Recording(folder)) for name, folder in folders.items()}
            _show(console, _draw(recordings, path, console, None))
    except (RtcoreError, OSError) as error:
        _say(console, f"not drawn: {error}")
        _say(console, f"The recording is kept; `{again}` tries again")
        return False
    except Stopped:
        _say(console, f"left out; `{again}` draws it")
        raise
    return True


def say_left_out(folder: Path, console: Console) -> None:
    """The program was told to end, and not by who sits before it."""
    _say(console, f"left out; `rtcore-run --replay {folder} --video` draws it")


def _draw(recordings: Mapping[str, Recording], path: Path, console: Console, max_ticks: int | None) -> Film:
    columns = (TextColumn("video    "), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, of: int) -> None:
            if done % _REFRESH_FRAMES == 0:
                bar.update(task, completed=done, total=of)

        with ExitStack() as stack:
            for recording in recordings.values():
                stack.enter_context(fitting_together(recording))
            return write_video(recordings, path, max_ticks=max_ticks, progress=show)


def _show(console: Console, film: Film) -> None:
    held = f", {film.held:,} of them held: ticks without a frame" if film.held else ""
    _say(console, f"{film.path} ({film.frames:,} frames{held}; {film.bytes / 1e6:.1f} MB)")


def _say(console: Console, text: str) -> None:
    console.print(f"video     {text}", markup=False, soft_wrap=True, highlight=False)
