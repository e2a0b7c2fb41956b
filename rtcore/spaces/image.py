"""Which part of an observation is an image, and that image as 8-bit levels, for whoever shows what is seen. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from rtcore.spaces.arrays import ArraySpec
from rtcore.spaces.observation import ObservationSpec

Image: TypeAlias = npt.NDArray[np.uint8]  #: (height, width, 1 or 3)

#: An array with a shorter side is a table, not an image.
_MIN_SIDE = 8
#: Most images that are stacked in one observation.
_MAX_STACK = 16


def image_in(observation: ObservationSpec) -> ImageOf | None:
    """The first part of such observations that is an image; None if there is none."""
    names = [name for name, spec in specs_of(observation).items() if is_image(spec)]
    return ImageOf(observation, names[0]) if names else None


def specs_of(observation: ObservationSpec) -> dict[str, ArraySpec]:
    """The parts by name; of a Box there is one, "": the frame itself."""
    return {part.name: part for part in observation.parts} or {"": observation}


def arrays_of(observation: ObservationSpec, frames: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """What `specs_of` describes, each (..., *shape): views of frames with any axes in front."""
    return observation.unpack(frames) if observation.parts else {"": frames}


def newest_image(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """(h, w) or (h, w, 3) out of an array; None if it is no image.

    Of images that are stacked, on the first axis or the last, the last one; a stack of a multiple of 3 is one of RGB.
    """
    if array.ndim == 4 and array.shape[0] <= _MAX_STACK:
        return newest_image(array[-1])
    if array.ndim == 3 and array.shape[0] <= _MAX_STACK < min(array.shape[1:]):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or min(array.shape[:2]) < _MIN_SIDE:
        return None
    if array.ndim == 2:
        return array
    channels = array.shape[2]
    if channels > _MAX_STACK:
        return None
    return array[..., -3:] if channels % 3 == 0 else array[..., -1]


def is_image(spec: ArraySpec) -> bool:
    """Whether such an array is drawn as an image: it has the shape of one, and bounds that say what is white."""
    # A view of one element: nothing as large as a frame is made to look at its shape.
    shape_only = np.broadcast_to(np.zeros((), spec.np_dtype), spec.shape)
    return newest_image(shape_only) is not None and _bounds(spec) is not None


def _bounds(spec: ArraySpec) -> tuple[float, float] | None:
    """What is black and what is white."""
    low, high = float(spec.low[0]), float(spec.high[0])
    if len(spec.low) == len(spec.high) == 1 and low < high and high - low < 1e6:
        return low, high
    return (0.0, 255.0) if spec.dtype == "uint8" else None


class ImageOf:
    """The image `name` of the parts of a frame, as 8-bit levels."""

    def __init__(self, observation: ObservationSpec, name: str) -> None:
        self._observation = observation
        self.name = name
        spec = specs_of(observation)[name]
        self._black, white = _bounds(spec) or (0.0, 255.0)
        self._gain = 255.0 / (white - self._black)
        image = newest_image(np.broadcast_to(np.zeros((), np.uint8), spec.shape))
        if image is None:
            raise ValueError(f"an array of shape {spec.shape} is no image")
        self.height, self.width = image.shape[:2]

    def __call__(self, frame: npt.NDArray[Any]) -> Image:
        """(height, width, 1 or 3); may be a view of `frame`."""
        return self.of_part(arrays_of(self._observation, frame)[self.name])

    def of_part(self, array: npt.NDArray[Any]) -> Image:
        """The same of that part alone."""
        image = cast(Image, newest_image(array))
        if image.dtype != np.uint8 or self._gain != 1.0:
            levels = (image.astype(np.float64) - self._black) * self._gain
            # What is no number is black.
            image = np.nan_to_num(np.clip(levels, 0, 255), nan=0.0).round().astype(np.uint8)
        return image[..., np.newaxis] if image.ndim == 2 else image


class WorldImage:
    """Call it for the image of the newest frame, (height, width, 1 or 3), or the one before if that was lapped.

    None before the first, and of a world whose observations are no images. `newest_frame`: of a `Runtime`, a
    `Simulation` or an `AttachedRun`.
    """

    def __init__(self, observation: ObservationSpec, newest_frame: Callable[[], npt.NDArray[Any] | None]) -> None:
        self._observation = observation
        self._newest_frame = newest_frame
        self._image: Image | None = None

    @cached_property
    def _image_of(self) -> Callable[[npt.NDArray[Any]], Image] | None:
        return image_in(self._observation)

    def __call__(self) -> Image | None:
        frame = self._newest_frame() if self._image_of is not None else None
        if frame is not None and self._image_of is not None:
            # Who mapped the ring before the world was known has bytes.
            typed = frame.reshape(-1).view(self._observation.np_dtype).reshape(self._observation.shape)
            self._image = self._image_of(typed)
        return self._image
