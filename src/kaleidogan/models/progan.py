"""ProGAN, the progressive GAN: networks that grow from small pictures to large ones.

From Karras et al. 2018, "Progressive growing of GANs for improved quality, stability, and variation":
equalised learning rates, pixel norm in the generator, the minibatch deviation at the discriminator's base,
nearest up and average down, a linear last layer. The parameters of all levels are there from the start; see
`growing.py` for what a level is.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.models import ops
from kaleidogan.models.growing import Stage, double, halve, levels
from kaleidogan.models.layers import Conv, Dense
from kaleidogan.models.stylegan2 import stage_channels, stage_sizes
from kaleidogan.settings import GrowFrom

DENSE_GAIN = 1 / 4
"""What the first layer's input is scaled by, as published: its output is normalised, so it is the bias that
weighs four times as much."""


class GeneratorBlock(nn.Module):
    """Doubles the features' sides and refines them.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, outputs, 3)
        self.conv1 = Conv(outputs, outputs, 3)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """The features at twice the size."""
        x = ops.pixel_norm(self.conv0(double(x)))
        return ops.pixel_norm(self.conv1(x))


class DiscriminatorBlock(nn.Module):
    """Looks at the features and halves their sides.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs, 3)
        self.conv1 = Conv(inputs, outputs, 3)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """The features at half the size."""
        return halve(self.conv1(self.conv0(x)))


class Generator(nn.Module):
    """Latent -> picture, about in [-1, 1]: a dense layer to the base, then blocks of convolutions.

    Args:
        resolution: (height, width) = base * 2^k, see `settings.split_resolution`.
        channels: of the picture.
        latent_dim: of z, drawn from N(0, 1).
        channel_base: channels of a block times its side.
        channel_max: of any block.
        grow_from: the first level, see `growing.levels`.
    """

    num_ws = 1

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (256, 256),
        channels: int = 3,
        latent_dim: int = 512,
        channel_base: int = 16384,
        channel_max: int = 512,
        grow_from: GrowFrom | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.image_shape = (channels, *resolution)
        sizes = stage_sizes(resolution)
        widths = stage_channels(resolution, channel_base, channel_max)
        self.stage = Stage(levels(sizes, grow_from))
        height, width = self._base = sizes[0]
        self.dense = Dense(latent_dim, widths[0] * height * width, activate=True)
        self.conv = Conv(widths[0], widths[0], 3)
        self.blocks = nn.ModuleList(GeneratorBlock(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.to_picture = nn.ModuleDict(
            {
                name: Conv(inputs, channels, 1, activate=False, bias=True)
                for name, inputs in zip(self.stage.names, widths[-len(self.stage.sizes) :], strict=True)
            }
        )

    def mapping(
        self, z: Float[Tensor, "n z"], c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n z"]:
        """Normalise z, and pull it towards the mean of 0 by psi."""
        w = ops.normalize_second_moment(z)
        return w if psi == 1.0 else w * psi

    def synthesis(self, w: Float[Tensor, "n z"], noise: str = "none") -> Float[Tensor, "n c h w"]:
        """The picture of each w, at the present level; there is no noise input."""
        first, stage = len(self.blocks) + 1 - len(self.to_picture), self.stage
        working = ops.working_type(self.dense.weight)
        with torch.autocast(w.device.type, enabled=False):
            x = self.dense(w * DENSE_GAIN).reshape(len(w), -1, *self._base)
            x = x.to(working, memory_format=torch.channels_last)
            x = ops.pixel_norm(self.conv(ops.pixel_norm(x)))
            below = None
            for number, block in enumerate(self.blocks[: first + stage.level], 1):
                if number == first + stage.level and stage.is_fading:
                    below = self.to_picture[stage.names[stage.level - 1]](x)
                x = block(x)
            picture = self.to_picture[stage.name](x)
            picture = picture if below is None else stage.blend(double(below), picture)
            return picture.to(self.dense.weight.dtype)

    def forward(
        self, z: Float[Tensor, "n z"], c: Tensor | None = None, psi: float = 1.0
    ) -> Float[Tensor, "n c h w"]:
        """The picture of each latent."""
        return self.synthesis(self.mapping(z, c, psi))


class Discriminator(nn.Module):
    """Picture -> logit: blocks of convolutions down to the base, the minibatch deviation, dense layers.

    Args:
        resolution: (height, width) of the last level's pictures.
        channels: of the picture.
        channel_base: channels of a block times its side.
        channel_max: of any block.
        grow_from: the first level, see `growing.levels`.
        mbstd_group: pictures that the minibatch deviation is found over.
    """

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (256, 256),
        channels: int = 3,
        channel_base: int = 16384,
        channel_max: int = 512,
        grow_from: GrowFrom | None = None,
        mbstd_group: int = 4,
    ) -> None:
        super().__init__()
        sizes = stage_sizes(resolution)
        widths = stage_channels(resolution, channel_base, channel_max)
        (height, width), deepest = sizes[0], widths[0]
        self.stage = Stage(levels(sizes, grow_from))
        self.mbstd_group = mbstd_group
        self.from_picture = nn.ModuleDict(
            {
                name: Conv(channels, outputs, 1)
                for name, outputs in zip(self.stage.names, widths[-len(self.stage.sizes) :], strict=True)
            }
        )
        # As in the generator: levels count from there.
        self.blocks_from_base = nn.ModuleList(
            DiscriminatorBlock(inputs, outputs) for outputs, inputs in pairwise(widths)
        )
        self.conv = Conv(deepest + 1, deepest, 3)
        self.dense = Dense(deepest * height * width, deepest, activate=True)
        self.out = Dense(deepest, 1)

    def forward(self, image: Float[Tensor, "n c h w"], c: Tensor | None = None) -> Float[Tensor, " n"]:
        """How real each picture of the present level looks: the logit, unreduced."""
        first, stage = len(self.blocks_from_base) + 1 - len(self.from_picture), self.stage
        image = image.to(ops.working_type(self.out.weight), memory_format=torch.channels_last)
        with torch.autocast(image.device.type, enabled=False):
            x = self.from_picture[stage.name](image)
            top = first + stage.level
            for number in range(top, 0, -1):
                x = self.blocks_from_base[number - 1](x)
                if number == top and stage.is_fading:
                    x = stage.blend(self.from_picture[stage.names[stage.level - 1]](halve(image)), x)
            x = ops.minibatch_std(x.to(self.out.weight.dtype), self.mbstd_group)
            return self.out(self.dense(self.conv(x).flatten(1))).squeeze(1)
