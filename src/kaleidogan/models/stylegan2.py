"""StyleGAN2, as StyleGAN2-ADA trains it: mapping, modulated synthesis, residual discriminator.

From Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", and Karras et al. 2020,
"Training generative adversarial networks with limited data". A picture of base * 2^k has k + 1 blocks, from
the base size up.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.models import ops
from kaleidogan.models.layers import Conv, Dense, Mapping, ModulatedConv, ToPicture
from kaleidogan.settings import split_resolution

Noise = Literal["random", "const", "none"]


def stage_sizes(resolution: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each block, from the base to the picture."""
    (height, width), doublings = split_resolution(*resolution)
    return [(height << k, width << k) for k in range(doublings + 1)]


def stage_channels(resolution: tuple[int, int], channel_base: int, channel_max: int) -> list[int]:
    """Channels of each block, from the base to the picture: channel_base / side, at most channel_max.

    The side of a block that is not square is the power of two nearest to that of a square of equal area.
    """
    sides = [2 ** round(math.log2(math.sqrt(h * w))) for h, w in stage_sizes(resolution)]
    return [max(1, min(channel_base // side, channel_max)) for side in sides]


def is_residual(architecture: str, other: str) -> bool:
    """Whether a network has shortcuts: "resnet"; or not: its other architecture.

    Raises:
        ValueError: if it is neither.
    """
    if architecture not in ("resnet", other):
        raise ValueError(f"architecture '{architecture}' is neither resnet nor {other}")
    return architecture == "resnet"


class SynthesisBlock(nn.Module):
    """Doubles the features' sides, refines them, and adds its part to the picture.

    Args:
        inputs: channels in; 0: the first block, which begins with a learnt constant.
        outputs: channels out.
        size: (height, width) of the output.
        w_dim: of w.
        channels: of the picture; 0: this block adds nothing to it.
        residual: a shortcut past the convolutions.
        enlarge: doubles the picture's sides.
        kernel: side of the kernel that makes the picture.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        w_dim: int,
        *,
        channels: int,
        residual: bool = False,
        enlarge: Callable[[Tensor], Tensor] = ops.upsample,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        self.enlarge = enlarge
        if inputs:
            self.conv0 = ModulatedConv(inputs, outputs, size, w_dim, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, *size))
        self.conv1 = ModulatedConv(outputs, outputs, size, w_dim)
        self.to_picture = ToPicture(outputs, channels, w_dim, kernel) if channels else None
        self.skip = Conv(inputs, outputs, 1, activate=False) if inputs and residual else None
        self.is_first = inputs == 0

    @property
    def num_convs(self) -> int:
        """How many w it takes, besides the picture's, which is that of the next convolution."""
        return 1 if self.is_first else 2

    def forward(
        self, x: Tensor, picture: Tensor | None, w: Float[Tensor, "n num_ws w_dim"], noise: str
    ) -> tuple[Tensor, Tensor | None]:
        """The features and the picture so far."""
        if self.is_first:
            x = self.conv1(x, w[:, 0], noise)
        elif self.skip is not None:
            # A sum of two of unit variance has unit variance again when each is scaled by sqrt(1/2).
            shortcut = ops.upsample(self.skip(x)) * math.sqrt(0.5)
            x = self.conv0(x, w[:, 0], noise)
            x = shortcut + self.conv1(x, w[:, 1], noise, gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x, w[:, 0], noise), w[:, 1], noise)
        if self.to_picture is not None:
            part = self.to_picture(x, w[:, self.num_convs])
            picture = part if picture is None else self.enlarge(picture) + part
        return x, picture


class StyledGenerator(nn.Module):
    """Latent -> w -> picture, by blocks that w styles.

    In training mode `forward` mixes styles (see `styles`) and `mapping` lets `w_avg` follow w, as dropout and
    batch norm have a training mode.

    Args:
        blocks: from the innermost to the picture.
        image_shape: (channels, height, width) of the picture.
        latent_dim: of z, drawn from N(0, 1).
        w_dim: of w.
        c_dim: of the condition; 0: none.
        mapping_layers: fully connected layers from z to w.
        style_mixing: share of the pictures that two latents make, in training mode.
        w_avg_beta: how much of w's running mean stays at each step.
    """

    def __init__(
        self,
        blocks: list[SynthesisBlock],
        *,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        w_dim: int,
        c_dim: int,
        mapping_layers: int,
        style_mixing: float,
        w_avg_beta: float,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.w_dim = w_dim
        self.c_dim = c_dim
        self.image_shape = image_shape
        self.style_mixing = style_mixing
        self.w_avg_beta = w_avg_beta
        self.map = Mapping(latent_dim, c_dim, w_dim, mapping_layers)
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.blocks = nn.ModuleList(blocks)
        self.num_ws = 2 * len(blocks)

    def mapping(
        self,
        z: Float[Tensor, "n z"],
        c: Float[Tensor, "n c_dim"] | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Float[Tensor, "n num_ws w_dim"]:
        """W for each layer, the same for all, truncated towards its mean: w_avg + psi * (w - w_avg).

        Args:
            z: latents; their length does nothing.
            c: conditions, where the network takes them.
            psi: 1 leaves w as it is, 0 gives the mean; any other works, below 0 and above 1 too.
            cutoff: layers that are truncated, from the first; None: all.
        """
        w = self._map(z, c)
        if self.training:
            self.w_avg.lerp_(w.detach().mean(dim=0), 1 - self.w_avg_beta)
        w = w[:, None].expand(-1, self.num_ws, -1)
        if psi == 1.0:
            return w
        truncated = self.w_avg + psi * (w - self.w_avg)
        count = self.num_ws if cutoff is None else cutoff
        return torch.cat([truncated[:, :count], w[:, count:]], dim=1)

    def _map(self, z: Tensor, c: Tensor | None) -> Tensor:
        """The mapping network, in single precision always."""
        with torch.autocast(z.device.type, enabled=False):
            return self.map(z, c)

    def styles(
        self, z: Float[Tensor, "n z"], c: Float[Tensor, "n c_dim"] | None = None
    ) -> Float[Tensor, "n num_ws w_dim"]:
        """W for each layer, where some pictures take the layers from a random one on from another latent.

        Style mixing (Karras et al. 2019) keeps neighbouring layers from relying on one another.
        """
        w = self.mapping(z, c)
        if self.style_mixing == 0:
            return w
        n = len(z)
        mixes = torch.rand(n, device=z.device) < self.style_mixing
        crossover = torch.randint(1, self.num_ws, (n,), device=z.device)
        from_other = torch.arange(self.num_ws, device=z.device) >= crossover[:, None]
        other = self._map(torch.randn_like(z), c)[:, None]
        return torch.where((from_other & mixes[:, None])[:, :, None], other, w)

    def synthesis(
        self, w: Float[Tensor, "n num_ws w_dim"] | Float[Tensor, "n w_dim"], noise: Noise = "random"
    ) -> Float[Tensor, "n c h w"]:
        """The picture of each row of w, given for each layer or once for all.

        Args:
            w: styles.
            noise: random: drawn anew; const: the stored one; none.
        """
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.num_ws, -1)
        const: Tensor = self.blocks[0].const  # type: ignore[assignment]
        x = const.to(ops.working_type(const)).expand(len(w), -1, -1, -1)
        x, picture, first = x.contiguous(memory_format=torch.channels_last), None, 0
        with torch.autocast(w.device.type, enabled=False):
            for block in self.blocks:
                x, picture = block(x, picture, w[:, first:], noise)
                first += block.num_convs  # type: ignore[operator, assignment]
        assert picture is not None
        return picture

    def forward(
        self, z: Float[Tensor, "n z"], c: Float[Tensor, "n c_dim"] | None = None, psi: float = 1.0
    ) -> Float[Tensor, "n c h w"]:
        """The picture of each latent."""
        return self.synthesis(self.styles(z, c) if self.training else self.mapping(z, c, psi))


class Generator(StyledGenerator):
    """Latent -> w -> picture, about in [-1, 1]. See `StyledGenerator`.

    Args:
        resolution: (height, width) = base * 2^k, see `settings.split_resolution`.
        channels: of the picture.
        latent_dim: of z, drawn from N(0, 1).
        w_dim: of w.
        c_dim: of the condition; 0: none.
        mapping_layers: fully connected layers from z to w.
        channel_base: channels of a block times its side.
        channel_max: of any block.
        generator_architecture: skip sums each block's picture; resnet has shortcuts, and one picture at the
            end.
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
        mapping_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        generator_architecture: Literal["skip", "resnet"] = "skip",
        style_mixing: float = 0.9,
        w_avg_beta: float = 0.995,
    ) -> None:
        sizes = stage_sizes(resolution)
        widths = stage_channels(resolution, channel_base, channel_max)
        residual = is_residual(generator_architecture, "skip")
        blocks = [
            SynthesisBlock(
                inputs,
                outputs,
                size,
                w_dim,
                channels=channels if not residual or size == sizes[-1] else 0,
                residual=residual,
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


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the sides, with a shortcut past them or without."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        gain = math.sqrt(0.5) if residual else 1.0
        self.conv0 = Conv(inputs, inputs, 3)
        self.conv1 = Conv(inputs, outputs, 3, down=True, gain=gain)
        self.skip = Conv(inputs, outputs, 1, down=True, activate=False, gain=gain) if residual else None

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """The features at half the size."""
        y = self.conv1(self.conv0(x))
        return y if self.skip is None else self.skip(x).add_(y)


class Discriminator(nn.Module):
    """Picture -> logit; with a condition, the projection of the picture's features onto it.

    Args:
        resolution: (height, width) of the picture.
        channels: of the picture.
        c_dim: of the condition; 0: none.
        channel_base: channels of a block times its side.
        channel_max: of any block.
        discriminator_architecture: resnet, or orig: without shortcuts.
        mbstd_group: pictures that the minibatch deviation is found over.
    """

    def __init__(
        self,
        *,
        resolution: tuple[int, int] = (256, 256),
        channels: int = 3,
        c_dim: int = 0,
        channel_base: int = 32768,
        channel_max: int = 512,
        discriminator_architecture: Literal["resnet", "orig"] = "resnet",
        mbstd_group: int = 4,
    ) -> None:
        super().__init__()
        height, width = stage_sizes(resolution)[0]
        widths = stage_channels(resolution, channel_base, channel_max)[::-1]
        residual = is_residual(discriminator_architecture, "orig")
        deepest = widths[-1]
        self.mbstd_group = mbstd_group
        self.from_picture = Conv(channels, widths[0], 1)
        self.blocks = nn.ModuleList(DiscriminatorBlock(i, o, residual=residual) for i, o in pairwise(widths))
        self.conv = Conv(deepest + 1, deepest, 3)
        self.dense = Dense(deepest * height * width, deepest, activate=True)
        self.out = Dense(deepest, deepest if c_dim else 1)
        self.map = Mapping(0, c_dim, deepest, layers=8) if c_dim else None

    def forward(
        self, image: Float[Tensor, "n c h w"], c: Float[Tensor, "n c_dim"] | None = None
    ) -> Float[Tensor, " n"]:
        """How real each picture looks, given its condition: the logit, unreduced."""
        x = image.to(ops.working_type(self.out.weight), memory_format=torch.channels_last)
        with torch.autocast(image.device.type, enabled=False):
            x = self.from_picture(x)
            for block in self.blocks:
                x = block(x)
            # Here half precision costs most of the gradient's direction, and least time.
            x = ops.minibatch_std(x.to(self.out.weight.dtype), self.mbstd_group)
            x = self.conv(x)
            x = self.out(self.dense(x.flatten(1)))
            if self.map is None:
                return x.squeeze(1)
            return (x * self.map(None, c)).sum(dim=1) * (1 / math.sqrt(x.shape[1]))
