"""Pixels into an mp4: H.264 by PyAV, a frame at a time, at an exact rate."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError, RecordError
from rtcore.host.extras import import_extra
from rtcore.recording.writer import reason_of

CODEC = "libx264"
#: Fast, and small enough: see docs/recording.md for what it takes.
_OPTIONS = {"preset": "veryfast", "crf": "20"}
#: H.264 halves the resolution of colours: both sides must be even.
_EVEN = 2
_MAX_INT32 = 2**31 - 1
#: ITU-R BT.601 with 16..235 for black to white: how libswscale makes YUV of RGB, said in the file.
_BT601, _LIMITED = 6, 1


def require_av() -> Any:
    """The module av, with an encoder for H.264; `ConfigError` if there is none."""
    av = import_extra("av", "a video", "record")
    if CODEC not in av.codecs_available:
        raise ConfigError(
            f"video: this build of the package av has no encoder {CODEC}; expected the one that `pip install av` brings"
        )
    return av


def even(size: int) -> int:
    """The next even number."""
    return size + size % _EVEN


def exact_rate(rate_hz: Fraction) -> Fraction:
    """`rate_hz`, or the nearest rate whose numerator and denominator an mp4 can hold (2^31 - 1 each)."""
    most = max(1, int(_MAX_INT32 / max(rate_hz, Fraction(1))))
    return rate_hz if max(rate_hz.as_integer_ratio()) <= _MAX_INT32 else rate_hz.limit_denominator(most)


class Mp4Writer:
    """An mp4 that is being written; a context manager. RecordError for whatever the disk refuses.

    What is there after an error can be played by nobody: remove it.
    """

    def __init__(self, path: Path, width: int, height: int, rate_hz: Fraction, title: str = "") -> None:
        """`width`, `height`: even, in pixels."""
        # What the disk refuses FFmpeg may tell only when it closes the file.
        self._av = require_av()
        self.path = path
        self.num_frames = 0
        try:
            self._container = self._av.open(str(path), "w", format="mp4")
        except OSError as error:
            raise self._refused(error) from error
        self._container.metadata["title"] = title
        self._stream = stream = self._container.add_stream(CODEC, rate=exact_rate(rate_hz), options=dict(_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        #: Of one tick; the stream has another once its header is written.
        self._tick_s = stream.time_base = 1 / exact_rate(rate_hz)
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(OSError, ValueError):
                self._container.close()
            return
        try:
            self._write(None)
            self._container.close()
        except OSError as error:
            raise self._refused(error) from error

    def add(self, pixels: npt.NDArray[np.uint8]) -> None:
        """The next frame: (height, width, 3), RGB."""
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = self.num_frames, self._tick_s
        try:
            self._write(frame)
        except OSError as error:
            raise self._refused(error) from error
        self.num_frames += 1

    def move_to(self, path: Path) -> None:
        """Once it is whole: give it its name."""
        try:
            self.path.replace(path)
        except OSError as error:
            raise self._refused(error) from error

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _refused(self, error: OSError) -> RecordError:
        return RecordError(
            f"the video {self.path} cannot be written: {reason_of(error)}; free some room, or give another folder"
        )
