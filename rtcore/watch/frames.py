"""What a run's world looks like, frame by frame: as another reader of its ring, of which the run knows nothing.

A frame is copied out of shared memory and looked at here. The env process does nothing for it, and a reader that is
lapped is no worker: it keeps the image that it had.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy.typing as npt

from rtcore.report.halfblocks import Image
from rtcore.spaces import ObservationSpec


class WorldSight:
    """Call it for the image of the newest frame, (height, width, 1 or 3), or the one before if that was lapped.

    None before the first, and of a world whose observations are no images. `newest_frame`: of a `Runtime`, a
    `Simulation` or an `Onlooker`.
    """

    def __init__(self, observation: ObservationSpec, newest_frame: Callable[[], npt.NDArray[Any] | None]) -> None:
        self._observation = observation
        self._newest_frame = newest_frame
        self._image: Image | None = None

    @cached_property
    def _image_of(self) -> Callable[[npt.NDArray[Any]], Image] | None:
        from rtcore.report.video.picture import image_in  # noqa: PLC0415 - a run that is not shown needs no Pillow

        return image_in(self._observation)

    def __call__(self) -> Image | None:
        frame = self._newest_frame() if self._image_of is not None else None
        if frame is not None and self._image_of is not None:
            # Who mapped the ring before the world was known has bytes.
            typed = frame.reshape(-1).view(self._observation.np_dtype).reshape(self._observation.shape)
            self._image = self._image_of(typed)
        return self._image
