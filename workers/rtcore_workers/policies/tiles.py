"""A small network for screens made of tiles, such as a Game Boy's: the mean grey of each tile, then dense layers.

A Game Boy draws a background of 20 by 18 tiles of 8 by 8 dots. What a game shows is in which tile is where; a mean
a tile keeps that, and costs a hundredth of what convolutions over the dots do. Nothing in it is trained, so that a
learner does it once a frame (`digest`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import PolicyConfigError
from rtcore_workers.policies.base import positive_int
from rtcore_workers.policies.layers import ActionHead, ImageInput, PastActions, WithPastActions


def tiles(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    rows: int = 18,
    columns: int = 20,
    hidden: int = 256,
    act_history: int = 0,
) -> nn.Module:
    """Mean of each tile, dense `hidden` twice, dueling values (Wang et al., 2016): 0.17M parameters for 84x84.

    For uint8 images, of which rows x columns tiles fill the whole, and Discrete actions. PolicyConfigError otherwise.
    """
    for name, value in (("rows", rows), ("columns", columns), ("hidden", hidden)):
        positive_int("tiles", name, value)
    if not isinstance(action_space, spaces.Discrete):
        raise PolicyConfigError(f"policy 'tiles' got actions {action_space}; expected Discrete. Use 'impala' or 'mlp'")
    images = ImageInput("tiles", observation_space)
    num_channels, height, width = images.shape
    if height < rows or width < columns:
        raise PolicyConfigError(
            f"policy 'tiles' got images of {height}x{width} for {rows}x{columns} tiles; expected a dot a tile at "
            "least. Give fewer rows and columns"
        )
    tile_input = TileInput(images, TileMeans((height, width), (rows, columns)))
    num_inputs = num_channels * rows * columns
    past = PastActions(action_space, act_history) if act_history else None
    if past is not None:
        num_inputs += past.num_features
    dense = nn.Sequential(
        nn.Linear(num_inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        DuelingHead(hidden, action_space),
    )
    # The numbers of the layers are their names in files of weights.
    features = nn.Sequential(tile_input, nn.Identity(), nn.Flatten())
    network = nn.Sequential(*features, *dense) if past is None else WithPastActions(features, past, dense)
    object.__setattr__(network, "digest", tile_input.digest)
    return network


class TileInput(nn.Module):
    """Raw frames to the mean darkness of each tile, float32 (B, C, rows, columns); digested ones need only the cast.

    Digested frames have the dtype float16, which raw ones (uint8) never have.
    """

    def __init__(self, images: ImageInput, means: TileMeans) -> None:
        super().__init__()
        self.images = images
        self.means = means

    def digest(self, frames: Tensor) -> Tensor:
        """Frames (B, *frame_shape) to float16 (B, C, rows, columns)."""
        return self.means(self.images(frames)).to(torch.float16)  # type: ignore[no-any-return]

    def forward(self, frames: Tensor) -> Tensor:
        digested = frames if frames.dtype == torch.float16 else self.digest(frames)
        return digested.to(torch.float32)


class TileMeans(nn.Module):
    """Images (B, C, H, W) in 0..1, white 1, to the mean darkness of each tile, (B, C, rows, columns).

    Tiles need not be whole dots: a dot on an edge counts to both sides by its share. No parameter.
    """

    down: Tensor
    across: Tensor

    def __init__(self, size: tuple[int, int], tiles: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("down", _shares(size[0], tiles[0]), persistent=False)
        self.register_buffer("across", _shares(size[1], tiles[1]).T.contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return 1.0 - self.down @ (images @ self.across)


class DuelingHead(nn.Module):
    """Features to action values as one value of the state and an advantage of each action above their mean."""

    def __init__(self, num_features: int, space: spaces.Discrete) -> None:
        super().__init__()
        self.value = nn.Linear(num_features, 1)
        self.advantage = ActionHead(num_features, space, 1)

    def forward(self, features: Tensor) -> Tensor:
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(1, keepdim=True)  # type: ignore[no-any-return]


def _shares(num_dots: int, num_tiles: int) -> Tensor:
    """(num_tiles, num_dots): which share of its mean a tile takes from each dot."""
    # By numpy: a worker that builds the network on torch's meta device would compute it with 800 modules more.
    starts = np.arange(num_dots, dtype=np.float32)
    edges = np.arange(num_tiles + 1, dtype=np.float32) * (num_dots / num_tiles)
    overlap = np.minimum(starts + 1, edges[1:, None]) - np.maximum(starts, edges[:-1, None])
    return torch.from_numpy(overlap.clip(min=0) * (num_tiles / num_dots))
