"""Random parameters of the augmentations: each image draws its own, with probability p."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Draws:
    """Draws a parameter for each image, and leaves it at 0, where its operation does nothing, otherwise.

    All numbers come from PyTorch's global generator on the images' device. How many are drawn does not depend
    on p, and p is not read back from the device.

    Args:
        p: the probability, in a tensor without dimensions.
        images: a batch; the parameters are on its device and of its type.
    """

    def __init__(self, p: Float[Tensor, ""], images: Float[Tensor, "n c h w"]) -> None:
        self.p = p
        self.count = len(images)
        self.device = images.device
        self.dtype = images.dtype

    def happens(self, p: Tensor | None = None) -> Bool[Tensor, " n"]:
        """Whether an operation applies to each image."""
        return torch.rand(self.count, device=self.device) < (self.p if p is None else p)

    def normal(self, std: float, *shape: int) -> Float[Tensor, "n *shape"]:
        """N(0, std^2), or 0."""
        drawn = torch.randn(self.count, *shape, device=self.device, dtype=self.dtype)
        return self._or_zero(drawn * std)

    def uniform(self, most: float, *shape: int, p: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """U(-most, most), or 0; p: another probability than this one's own."""
        drawn = torch.rand(self.count, *shape, device=self.device, dtype=self.dtype)
        return self._or_zero((drawn * 2 - 1) * most, p)

    def whole(self, choices: int) -> Int[Tensor, " n"]:
        """U{0, ..., choices - 1}, or 0."""
        return self._or_zero(torch.randint(choices, (self.count,), device=self.device))

    def _or_zero(self, drawn: Tensor, p: Tensor | None = None) -> Tensor:
        happens = self.happens(p).view(-1, *[1] * (drawn.ndim - 1))
        return torch.where(happens, drawn, torch.zeros_like(drawn))


def choose(which: Bool[Tensor, " n"], one: Tensor, other: Tensor) -> Float[Tensor, "n c h w"]:
    """Whole images of `one` where `which` says so, and of `other` elsewhere, to the bit."""
    return torch.where(which[:, None, None, None], one, other)
