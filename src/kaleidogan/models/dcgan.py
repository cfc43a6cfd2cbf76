"""DCGAN: strided convolutions, batch normalisation, no pooling, no dense layers.

From Radford, Metz and Chintala 2016, "Unsupervised representation learning with deep convolutional
generative adversarial networks". Both networks grow in depth with the picture: one of base * 2^k has k
stages that double (generator) or halve (discriminator) its sides. Channels double from stage to stage, up
to 8 * width, as in the paper's 64 px.
"""

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.settings import split_resolution

WIDEST = 8
"""The innermost stage has at most this many times `width` channels."""


class Generator(nn.Module):
    """Latent -> picture in [-1, 1]: transposed convolutions 4-2-1 with batch norm and ReLU, then tanh.

    Args:
        resolution: (height, width) = base * 2^k, see `settings.split_resolution`.
        channels: of the picture.
        latent_dim: of z, drawn from N(0, 1).
        width: channels before the last layer; the paper's 64.
    """

    num_ws = 1

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (64, 64),
        channels: int = 3,
        latent_dim: int = 100,
        width: int = 64,
    ) -> None:
        super().__init__()
        base, doublings = split_resolution(*resolution)
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
        self.apply(init_published)

    def mapping(
        self, z: Float[Tensor, "n z"], c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n z"]:
        """There is no mapping here: w is z, pulled towards its mean of 0 by psi."""
        return z if psi == 1.0 else z * psi

    def synthesis(self, w: Float[Tensor, "n z"], noise: str = "none") -> Float[Tensor, "n c h w"]:
        """The picture of each latent; there is no noise input."""
        return self.layers(w[:, :, None, None])

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
    """

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (64, 64),
        channels: int = 3,
        width: int = 64,
        discriminator_norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        base, doublings = split_resolution(*resolution)
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
        self.apply(init_published)

    def forward(self, image: Float[Tensor, "n c h w"], c: Tensor | None = None) -> Float[Tensor, " n"]:
        """How real each picture looks: the logit, unreduced, without a sigmoid."""
        return self.layers(image).flatten(1).squeeze(1)


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
