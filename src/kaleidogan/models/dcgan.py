"""DCGAN: strided convolutions, batch normalisation, no pooling, no dense layers.

From Radford, Metz and Chintala 2016, "Unsupervised representation learning with deep convolutional
generative adversarial networks". Both networks grow in depth with the picture: one of base * 2^k has k
stages that double (generator) or halve (discriminator) its sides. Channels double from stage to stage, up
to 8 * width, as in the paper's 64 px.

Both can be grown (see `growing.py`): they begin with fewer stages, which stay when others are added on the
picture's side. Each lower level has a last layer of the generator and a first one of the discriminator of its
own.
"""

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.models.growing import Stage, double, halve, levels
from kaleidogan.settings import MIN_DOUBLINGS, GrowFrom, split_resolution

WIDEST = 8
"""The innermost stage has at most this many times `width` channels."""
LAYERS = 3
"""Of a stage: a convolution, its batch norm and the activation."""


class Generator(nn.Module):
    """Latent -> picture in [-1, 1]: transposed convolutions 4-2-1 with batch norm and ReLU, then tanh.

    Args:
        resolution: (height, width) = base * 2^k, see `settings.split_resolution`.
        channels: of the picture.
        latent_dim: of z, drawn from N(0, 1).
        width: channels before the last layer; the paper's 64.
        grow_from: the first level, see `growing.levels`; None: it does not grow.
    """

    num_ws = 1

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (64, 64),
        channels: int = 3,
        latent_dim: int = 100,
        width: int = 64,
        grow_from: GrowFrom | None = None,
    ) -> None:
        super().__init__()
        base, doublings = split_resolution(*resolution)
        self.stage = Stage(levels(level_sizes(resolution), grow_from))
        self.latent_dim = latent_dim
        self.image_shape = (channels, *resolution)
        widths = stage_widths(width, doublings)[::-1]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_dim, widths[0], base, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for wide, narrow in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        lower = self.stage.names[:-1]
        self.early = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.ConvTranspose2d(wide, channels, 4, stride=2, padding=1, bias=False), nn.Tanh()
                )
                for name, wide in zip(lower, widths[len(widths) - 1 - len(lower) : -1], strict=True)
            }
        )
        self.apply(init_published)

    def mapping(
        self, z: Float[Tensor, "n z"], c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n z"]:
        """There is no mapping here: w is z, pulled towards its mean of 0 by psi."""
        return z if psi == 1.0 else z * psi

    def synthesis(self, w: Float[Tensor, "n z"], noise: str = "none") -> Float[Tensor, "n c h w"]:
        """The picture of each latent, at the present level; there is no noise input."""
        x, missing = w[:, :, None, None], len(self.early) - self.stage.level
        if not self.stage.is_fading:
            return self._picture(self.layers[: self._length(missing)](x), missing)
        x = self.layers[: self._length(missing + 1)](x)
        below = double(self._picture(x, missing + 1))
        x = self.layers[self._length(missing + 1) : self._length(missing)](x)
        return self.stage.blend(below, self._picture(x, missing))

    def _length(self, missing: int) -> int:
        """How many layers there are up to the features that a level's picture is made from."""
        return len(self.layers) - 2 - LAYERS * missing

    def _picture(self, x: Tensor, missing: int) -> Tensor:
        """The picture of the level that so many are missing above."""
        last = self.early[self.stage.names[-1 - missing]] if missing else self.layers[-2:]
        return last(x)

    def forward(
        self, z: Float[Tensor, "n z"], c: Tensor | None = None, psi: float = 1.0
    ) -> Float[Tensor, "n c h w"]:
        """The picture of each latent."""
        return self.synthesis(self.mapping(z, c, psi))


class Discriminator(nn.Module):
    """Picture -> logit: convolutions 4-2-1 with LeakyReLU 0.2, batch norm but for the first and the last.

    Args:
        resolution: (height, width) of the picture.
        channels: of the picture.
        width: channels after the first layer; the paper's 64.
        discriminator_norm: "none" leaves the batch norms out, as gradient penalties want it.
        grow_from: the first level, see `growing.levels`; None: it does not grow.
    """

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (64, 64),
        channels: int = 3,
        width: int = 64,
        discriminator_norm: Literal["batch", "none"] = "batch",
        grow_from: GrowFrom | None = None,
    ) -> None:
        super().__init__()
        base, doublings = split_resolution(*resolution)
        self.stage = Stage(levels(level_sizes(resolution), grow_from))
        widths = [channels, *stage_widths(width, doublings)]
        normed = discriminator_norm == "batch"
        layers: list[nn.Module] = []
        for number, (narrow, wide) in enumerate(pairwise(widths)):
            has_norm = normed and number > 0
            layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=not has_norm))
            layers += [nn.BatchNorm2d(wide)] if has_norm else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(widths[-1], 1, base, bias=not normed))
        self.layers = nn.Sequential(*layers)
        self._each = LAYERS if normed else LAYERS - 1
        lower = self.stage.names[:-1]
        self.early = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Conv2d(channels, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)
                )
                for name, wide in zip(lower, widths[1 + len(lower) : 1 : -1], strict=True)
            }
        )
        self.apply(init_published)

    def forward(self, image: Float[Tensor, "n c h w"], c: Tensor | None = None) -> Float[Tensor, " n"]:
        """How real each picture of the present level looks: the logit, unreduced, without a sigmoid."""
        missing = len(self.early) - self.stage.level
        x = self._features(image, missing)
        if self.stage.is_fading:
            x = self.layers[self._place(missing) : self._place(missing + 1)](x)
            x = self.stage.blend(self._features(halve(image), missing + 1), x)
            missing += 1
        return self.layers[self._place(missing) :](x).flatten(1).squeeze(1)

    def _features(self, image: Tensor, missing: int) -> Tensor:
        """What the first layer of the level that so many are missing above makes of its picture."""
        first = self.early[self.stage.names[-1 - missing]] if missing else self.layers[:2]
        return first(image)

    def _place(self, missing: int) -> int:
        """Where the layers go on after a level's first."""
        return 2 + self._each * missing


def level_sizes(resolution: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes that pictures can have as the networks grow: from two stages up."""
    (height, width), doublings = split_resolution(*resolution)
    return [(height << k, width << k) for k in range(MIN_DOUBLINGS, doublings + 1)]


def stage_widths(width: int, stages: int) -> list[int]:
    """Channels of each stage from the picture inwards: width, 2 * width ... at most 8 * width."""
    return [width * min(2**stage, WIDEST) for stage in range(stages)]


@torch.no_grad()
def init_published(layer: nn.Module) -> None:
    """Initialise a layer as published: weights N(0, 0.02), batch norm's scale N(1, 0.02), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        layer.weight.normal_(0.0, 0.02)
        if layer.bias is not None:
            layer.bias.zero_()
    elif isinstance(layer, nn.BatchNorm2d):
        layer.weight.normal_(1.0, 0.02)
        layer.bias.zero_()
