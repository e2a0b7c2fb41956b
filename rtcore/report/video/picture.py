"""An observation as pixels: the image it is, scaled by a whole number, or its elements as bars. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rtcore.report.colours import RUN_COLOURS
from rtcore.spaces import ArraySpec, ObservationSpec
from rtcore.spaces.image import ImageOf, arrays_of, image_in, specs_of

# -- what all parts of a video are drawn with -------------------------------------------------------------

GROUND = "#16181D"
TEXT = "#E8EAED"
DIM = "#8A9099"
#: Buttons, cells and bars that nothing lights.
UNLIT = "#333842"


@cache
def font(size: int, *, bold: bool = False) -> Any:
    """A font in which all characters are equally wide, `size` pixels high."""
    import matplotlib  # noqa: PLC0415 - takes a while to import; it brings the font

    name = f"DejaVuSansMono{'-Bold' if bold else ''}.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def cut(text: str, num_characters: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= num_characters else text[: num_characters - 1] + "…"


def quantity(value: float) -> str:
    """A number in few characters."""
    return f"{value:.5g}"


# -- an observation ---------------------------------------------------------------------------------------

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]

#: An image is scaled to about this height, and to no greater width.
_HEIGHT, _MAX_WIDTH = 420, 720
_MAX_ROWS = 20


class Picture(Protocol):
    """How observations of one space are drawn."""

    height: int
    width: int

    def draw(self, frame: npt.NDArray[Any]) -> Pixels:
        """(height, width, 3), RGB. Belongs to the picture; valid until the next call."""
        ...


def picture_of(observation: ObservationSpec, frames: Callable[[], Iterable[npt.NDArray[Any]]]) -> Picture:
    """How to draw such observations: the first part that is an image, else bars of every element.

    `frames()`: blocks (n, *shape) of all frames there are; read once, and only for the scale of bars.
    """
    image_of = image_in(observation)
    return ImagePicture(image_of) if image_of is not None else BarsPicture(observation, frames())


class ImagePicture:
    """The image of a frame, nearest neighbour, scaled by a whole number."""

    def __init__(self, image_of: ImageOf) -> None:
        self._image_of = image_of
        height, width = image_of.height, image_of.width
        scale = max(1, min(round(_HEIGHT / height), _MAX_WIDTH // width))
        self.height, self.width = height * scale, width * scale
        self._pixels = np.empty((height, scale, width, scale, 3), np.uint8)

    def draw(self, frame: npt.NDArray[Any]) -> Pixels:
        self._pixels[...] = self._image_of(frame)[:, np.newaxis, :, np.newaxis]
        return self._pixels.reshape(self.height, self.width, 3)


# -- bars --------------------------------------------------------------------------------------------------


class BarsPicture:
    """Every element of a frame as a bar, over the range it has in the recording, from 0 or from the end nearest to it.

    Up to 20 elements are rows with their numbers; more are columns, and those beyond the width are only counted.
    """

    height = width = _HEIGHT

    def __init__(self, observation: ObservationSpec, blocks: Iterable[npt.NDArray[Any]]) -> None:
        self._observation = observation
        self._specs = specs_of(observation)
        self._names = [each for name, spec in self._specs.items() for each in _element_names(name, spec)]
        self._low, self._high = _ranges(map(self.values, blocks), len(self._names))
        self._shown = min(len(self._names), self.width)
        self._as_rows = len(self._names) <= _MAX_ROWS
        self._still = self._draw_still()

    def values(self, frames: npt.NDArray[Any]) -> Numbers:
        """(..., elements) of a frame or of many: all elements, in the order of the parts."""
        lead = frames.shape[: frames.ndim - len(self._observation.shape)]
        arrays = arrays_of(self._observation, frames)
        return np.concatenate(
            [arrays[name].reshape((*lead, spec.num_elements)).astype(np.float64) for name, spec in self._specs.items()],
            axis=-1,
        )

    def draw(self, frame: npt.NDArray[Any]) -> Pixels:
        values = self.values(frame)[: self._shown]
        low, high = self._low[: self._shown], self._high[: self._shown]
        zero, ends = shares_of(np.clip(0.0, low, high), low, high), shares_of(values, low, high)
        image = self._still.copy()
        pen = ImageDraw.Draw(image)
        (self._draw_rows if self._as_rows else self._draw_columns)(pen, values, zero, ends)
        return np.asarray(image)

    def _draw_still(self) -> Image.Image:
        """What is the same at every tick: names, or how many there are."""
        image = Image.new("RGB", (self.width, self.height), GROUND)
        pen = ImageDraw.Draw(image)
        if not self._as_rows:
            first = f"first {self._shown} of " if self._shown < len(self._names) else ""
            pen.text((6, 4), f"{first}{len(self._names)} elements, each over its own range", DIM, font(12))
            return image
        pitch = self._pitch()
        for row, name in enumerate(self._names):
            pen.text((6, row * pitch + pitch // 2), cut(name, 12), DIM, font(12), anchor="lm")
        return image

    def _pitch(self) -> int:
        return min(40, self.height // len(self._names))

    def _draw_rows(self, pen: ImageDraw.ImageDraw, values: Numbers, zero: Numbers, ends: Numbers) -> None:
        left, right, pitch = 100, self.width - 90, self._pitch()
        for row, (value, *place) in enumerate(zip(values.tolist(), zero.tolist(), ends.tolist(), strict=True)):
            top, bottom = row * pitch + 3, (row + 1) * pitch - 4
            pen.rectangle((left, top, right, bottom), UNLIT)
            begin, end = (left + round(at * (right - left)) for at in sorted(place))
            pen.rectangle((begin, top, end, bottom), RUN_COLOURS[5])
            pen.text((right + 8, (top + bottom) // 2), quantity(value), TEXT, font(12), anchor="lm")

    def _draw_columns(self, pen: ImageDraw.ImageDraw, values: Numbers, zero: Numbers, ends: Numbers) -> None:
        top, bottom, pitch = 26, self.height - 6, self.width // len(values)
        for column, place in enumerate(zip(zero.tolist(), ends.tolist(), strict=True)):
            lower, upper = (bottom - round(at * (bottom - top)) for at in sorted(place))
            left = column * pitch
            pen.rectangle((left, upper, left + max(0, pitch - 2), lower), RUN_COLOURS[5])


def shares_of(values: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Where each value lies between its bounds: 0 at the lower, 1 at the upper. What is no number lies at 0."""
    return np.nan_to_num(np.clip((values - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0), nan=0.0)


def _element_names(name: str, spec: ArraySpec) -> list[str]:
    """Of each element: its index, behind the name of its part."""
    if spec.num_elements == 1 and name:
        return [name]
    return [f"{name} {index}".lstrip() for index in range(spec.num_elements)]


def _ranges(blocks: Iterable[Numbers], count: int) -> tuple[Numbers, Numbers]:
    """Smallest and largest finite value of each element in blocks (n, count); 0 and 0 where there is none."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    for block in blocks:
        finite = np.isfinite(block)
        low = np.minimum(low, np.where(finite, block, np.inf).min(axis=0, initial=np.inf))
        high = np.maximum(high, np.where(finite, block, -np.inf).max(axis=0, initial=-np.inf))
    none = low > high
    low[none] = high[none] = 0.0
    return low, high
