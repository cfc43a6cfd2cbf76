"""Growing: networks that begin with small pictures and take on larger ones, level by level.

From Karras et al. 2018, "Progressive growing of GANs for improved quality, stability, and variation". A level
is a size of pictures, each twice that of the one before. A new level is faded in: alpha of its picture shows,
and 1 - alpha of the enlarged picture of the level below, in what the generator makes, in what the
discriminator sees, and in the reals.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.settings import GrowFrom

Size = tuple[int, int]


class _Halve(torch.autograd.Function):
    """The mean of each 2x2 pixels. PyTorch's gradient of it is several times as slow as `_Double`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Double.apply(gradients[0] / 4)


class _Double(torch.autograd.Function):
    """Each pixel four times: the adjoint of `_Halve`, but for a factor of 4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Halve.apply(gradients[0]) * 4


def halve(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Half the sides: the mean of each 2x2 pixels."""
    return _Halve.apply(x)


def double(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Twice the sides: each pixel four times."""
    return _Double.apply(x)


def levels(sizes: Sequence[Size], grow_from: GrowFrom | None) -> list[Size]:
    """The sizes that a network has a level for.

    Args:
        sizes: that it could have, from the smallest to the picture's.
        grow_from: the shorter side of the first; base: the smallest; None: only the picture's size.

    Raises:
        ValueError: if there is no such size; names those that there are.
    """
    if grow_from is None:
        return list(sizes[-1:])
    sides = [min(size) for size in sizes]
    if grow_from == "base":
        return list(sizes)
    if grow_from not in sides:
        known = ", ".join(str(side) for side in sides)
        raise ValueError(f"growth.start={grow_from}: pictures of {sides[-1]} px grow through {known} px")
    return list(sizes[sides.index(grow_from) :])


class Stage(nn.Module):
    """Where a growing network stands: its level, and how much of it shows. It is saved with the network.

    Args:
        sizes: (height, width) of each level, from the first to the last.
    """

    def __init__(self, sizes: list[Size]) -> None:
        super().__init__()
        self.sizes = sizes
        self.level = 0
        self.alpha = 1.0
        self.register_load_state_dict_pre_hook(_be_grown)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> dict[str, float]:
        """The level and alpha, for the checkpoint. Plain numbers: a buffer would wait for the GPU."""
        return {"level": self.level, "alpha": self.alpha}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Set the level and alpha from a checkpoint."""
        self.level, self.alpha = int(state["level"]), state["alpha"]

    @property
    def names(self) -> list[str]:
        """Each level's: the shorter side, by which what it has of its own is kept, wherever growth begins."""
        return [str(min(size)) for size in self.sizes]

    @property
    def name(self) -> str:
        """The present level's."""
        return self.names[self.level]

    @property
    def size(self) -> Size:
        """(height, width) of the pictures at this level."""
        return self.sizes[self.level]

    @property
    def is_fading(self) -> bool:
        """Whether the level below still shows."""
        return self.level > 0 and self.alpha < 1.0

    def blend(self, below: Tensor, new: Tensor) -> Tensor:
        """(1 - alpha) of the level below and alpha of the new one, both of one size."""
        return torch.lerp(below, new, self.alpha)

    def view(self, image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Pictures of the last level's size as they are shown at this one: shrunk by averaging, and faded."""
        factor = image.shape[2] // self.size[0]
        image = F.avg_pool2d(image, factor) if factor > 1 else image
        return self.blend(double(halve(image)), image) if self.is_fading else image


def _be_grown(stage: nn.Module, state: dict[str, Any], prefix: str, *others: object) -> None:
    """Take a checkpoint from before its network could grow for one of the last level."""
    assert isinstance(stage, Stage)
    state.setdefault(f"{prefix}_extra_state", {"level": len(stage.sizes) - 1, "alpha": 1.0})
