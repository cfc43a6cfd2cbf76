"""SWAGAN: StyleGAN2 over Haar sub-bands, at half the picture's size.

From Gal et al. 2021, "SWAGAN: a style-based wavelet-driven generative model". Each block makes four sub-bands
of every channel; the sum of all is turned into the picture by the inverse transform, and the discriminator
looks at the sub-bands of the picture. High frequencies become low ones there, and the convolutions are half
as large.

Two variants are published. In the paper's, 3x3 convolutions make the sub-bands in the generator, 1x1 ones
read them in the discriminator, and its last stage is half the base. In the popular port it is the other way
round, and the last stage is the base. Both have no shortcuts in the discriminator.
"""

import math
from collections.abc import Callable
from itertools import pairwise, zip_longest
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.models import ops, wavelets
from kaleidogan.models.layers import Conv, Dense, Mapping
from kaleidogan.models.stylegan2 import (
    DiscriminatorBlock,
    Noise,
    StyledGenerator,
    SynthesisBlock,
    stage_channels,
    stage_sizes,
)

Variant = Literal["paper", "port"]
Upsampling = Literal["bilinear", "neural"]


class NeuralUpsampling(nn.Module):
    """Sub-bands at twice the size by a learnt 1x1 convolution on the picture that they make (SWAGAN-NU).

    Args:
        channels: of the picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, 4 * channels, 1, activate=False)

    def forward(self, bands: Float[Tensor, "n bands h w"]) -> Float[Tensor, "n bands h2 w2"]:
        """The sub-bands of a picture of twice the size."""
        return self.conv(wavelets.synthesise(bands))


class NeuralDownsampling(nn.Module):
    """Sub-bands at half the size: those of what a learnt 1x1 convolution makes of them (SWAGAN-NU).

    Args:
        channels: of the picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(4 * channels, channels, 1, activate=False)

    def forward(self, bands: Float[Tensor, "n bands h w"]) -> Float[Tensor, "n bands h2 w2"]:
        """The sub-bands of a picture of half the size."""
        return wavelets.analyse(self.conv(bands))


class Generator(StyledGenerator):
    """Latent -> w -> sub-bands -> picture, about in [-1, 1]. See `StyledGenerator`.

    Args:
        resolution: (height, width) = base * 2^k, see `settings.split_resolution`.
        channels: of the picture.
        latent_dim: of z, drawn from N(0, 1).
        w_dim: of w.
        c_dim: of the condition; 0: none.
        mapping_layers: fully connected layers from z to w.
        channel_base: channels of a block times its side.
        channel_max: of any block.
        variant: paper: 3x3 convolutions make the sub-bands; port: 1x1.
        upsampling: of the sub-bands: bilinear, or neural, see `NeuralUpsampling`.
        style_mixing: share of the pictures that two latents make, in training mode.
        w_avg_beta: how much of w's running mean stays at each step.
    """

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (256, 256),
        channels: int = 3,
        latent_dim: int = 512,
        w_dim: int = 512,
        c_dim: int = 0,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        variant: Variant = "port",
        upsampling: Upsampling = "bilinear",
        style_mixing: float = 0.9,
        w_avg_beta: float = 0.995,
    ) -> None:
        # The last stage is at half the picture's size: there are its sub-bands.
        sizes = stage_sizes(resolution)[:-1]
        widths = stage_channels(resolution, channel_base, channel_max)[:-1]
        blocks = [
            SynthesisBlock(
                inputs,
                outputs,
                size,
                w_dim,
                channels=4 * channels,
                enlarge=NeuralUpsampling(channels)
                if inputs and upsampling == "neural"
                else wavelets.upsample,
                kernel=3 if variant == "paper" else 1,
            )
            for inputs, outputs, size in zip([0, *widths], widths, sizes, strict=False)
        ]
        super().__init__(
            blocks,
            image_shape=(channels, *resolution),
            latent_dim=latent_dim,
            w_dim=w_dim,
            c_dim=c_dim,
            mapping_layers=mapping_layers,
            style_mixing=style_mixing,
            w_avg_beta=w_avg_beta,
        )

    def synthesis(
        self, w: Float[Tensor, "n num_ws w_dim"] | Float[Tensor, "n w_dim"], noise: Noise = "random"
    ) -> Float[Tensor, "n c h w"]:
        """The picture of each row of w; see `StyledGenerator.synthesis`."""
        bands = super().synthesis(w, noise)
        with torch.autocast(bands.device.type, enabled=False):
            return wavelets.synthesise(bands)


class Discriminator(nn.Module):
    """Picture -> sub-bands -> logit; with a condition, the projection of the features onto it.

    Args:
        resolution: (height, width) of the picture; the paper's variant wants an even base.
        channels: of the picture.
        c_dim: of the condition; 0: none.
        channel_base: channels of a block times its side.
        channel_max: of any block.
        variant: paper: 1x1 convolutions read the sub-bands; port: 3x3.
        upsampling: the generator's; the discriminator's way down is its counterpart.
        mbstd_group: pictures that the minibatch deviation is found over.
    """

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (256, 256),
        channels: int = 3,
        c_dim: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        variant: Variant = "port",
        upsampling: Upsampling = "bilinear",
        mbstd_group: int = 4,
    ) -> None:
        super().__init__()
        height, width = stage_sizes(resolution)[0]
        widths = stage_channels(resolution, channel_base, channel_max)[::-1]
        if variant == "paper":
            # The stages have the picture's widths, at half its sizes.
            if height % 2 or width % 2:
                raise ValueError(f"variant=paper halves the base, {height}x{width}, which has to be even")
            height, width = height // 2, width // 2
        else:
            widths = [widths[0], *widths[2:]]
        deepest = widths[-1]
        kernel = 1 if variant == "paper" else 3
        self.mbstd_group = mbstd_group
        self.from_bands = nn.ModuleList(Conv(4 * channels, inputs, kernel) for inputs in widths)
        self.blocks = nn.ModuleList(DiscriminatorBlock(i, o, residual=False) for i, o in pairwise(widths))
        downs: list[Callable[[Tensor], Tensor]] = [wavelets.downsample for _ in self.blocks]
        if upsampling == "neural":
            self.neural = nn.ModuleList(NeuralDownsampling(channels) for _ in self.blocks)
            downs = list(self.neural)
        self._downs = downs
        self.conv = Conv(deepest + 1, deepest, 3)
        self.dense = Dense(deepest * height * width, deepest, activate=True)
        self.out = Dense(deepest, deepest if c_dim else 1)
        self.map = Mapping(0, c_dim, deepest, layers=8) if c_dim else None

    def inwards(self) -> list[nn.Module]:
        """The parts in the order in which a picture meets them."""
        downs = [down for down in self._downs if isinstance(down, nn.Module)]
        steps = zip_longest(self.from_bands, self.blocks, downs)
        parts = [part for step in steps for part in step if part is not None]
        return [*parts, self.conv, self.dense, self.out]

    def forward(
        self, image: Float[Tensor, "n c h w"], c: Float[Tensor, "n c_dim"] | None = None
    ) -> Float[Tensor, " n"]:
        """How real each picture looks, given its condition: the logit, unreduced."""
        working = ops.working_type(self.out.weight)
        with torch.autocast(image.device.type, enabled=False):
            bands = wavelets.analyse(image.to(self.out.weight.dtype, memory_format=torch.channels_last))
            x = self.from_bands[0](bands.to(working))
            for block, down, read in zip(self.blocks, self._downs, self.from_bands[1:], strict=True):
                bands = down(bands)
                x = block(x)
                x = x + read(bands.to(working))
            x = ops.minibatch_std(x.to(self.out.weight.dtype), self.mbstd_group)
            x = self.out(self.dense(self.conv(x).flatten(1)))
            if self.map is None:
                return x.squeeze(1)
            return (x * self.map(None, c)).sum(dim=1) * (1 / math.sqrt(x.shape[1]))
