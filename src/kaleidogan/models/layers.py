"""Layers with equalised learning rates, from which the style-based and the progressive networks are made.

Equalised: weights are drawn from N(0, 1) and scaled at run time by 1 / sqrt(fan in), so that Adam moves all
    of them equally fast (Karras et al. 2018, "Progressive growing of GANs for improved quality, stability,
    and variation").
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.models import ops
from kaleidogan.models.convolutions import conv

SLOPE = 0.2
"""Of the leaky ReLU below 0."""
GAIN = math.sqrt(2)
"""What the leaky ReLU's output is scaled by to keep unit variance. It is folded into what comes before it:
gain * lrelu(x) = lrelu(gain * x)."""


class Dense(nn.Module):
    """Fully connected, in single precision always: it is small, and styles and logits need the digits.

    Args:
        inputs: features in.
        outputs: features out.
        activate: leaky ReLU with unit variance; else linear.
        rate: learning rate multiplier: the weights are drawn as much larger and scaled down at run time.
        bias: initial value.
    """

    def __init__(
        self, inputs: int, outputs: int, *, activate: bool = False, rate: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate = rate
        self.activate = activate

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """The features of each row."""
        gain = self.rate * (GAIN if self.activate else 1.0)
        # The product is scaled, not the weights: there are more of those.
        y = torch.addmm(
            self.bias * gain,
            x.to(self.weight.dtype),
            self.weight.T,
            alpha=gain / math.sqrt(self.weight.shape[1]),
        )
        return F.leaky_relu(y, SLOPE, inplace=True) if self.activate else y


class Conv(nn.Module):
    """A convolution, then leaky ReLU; or linear.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel, odd.
        down: halve the sides.
        activate: leaky ReLU; else linear.
        bias: whether it has one; None: where it is activated.
        gain: what the output is scaled by besides.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        down: bool = False,
        activate: bool = True,
        bias: bool | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        has_bias = activate if bias is None else bias
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if has_bias else None
        self.activate = activate
        self.down = down
        self.gain = gain * (GAIN if activate else 1.0)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """The features, at the input's size or half of it."""
        weight = (self.weight * (self.gain / math.sqrt(self.weight[0].numel()))).to(x.dtype)
        bias = (self.bias * self.gain).to(x.dtype) if self.bias is not None else None
        if not self.down:
            y = conv(x, weight, bias, padding=self.weight.shape[2] // 2)
        elif self.weight.shape[2] == 1:
            y = conv(ops.downsample(x), weight, bias)
        else:
            y = ops.down_conv(x, weight, bias)
        return F.leaky_relu(y, SLOPE, inplace=True) if self.activate else y


class Mapping(nn.Module):
    """Latent and condition -> w: both normalised, then fully connected layers that learn slowly.

    From Karras et al. 2019, "A style-based generator architecture for generative adversarial networks". Each
    of z and the embedded condition has unit second moment on entry, so that the length of z does nothing.

    Args:
        latent_dim: of z; 0: there is none.
        c_dim: of the condition; 0: there is none.
        w_dim: of w, and of every layer.
        layers: fully connected ones.
        rate: their learning rate multiplier.
    """

    def __init__(self, latent_dim: int, c_dim: int, w_dim: int, layers: int, rate: float = 0.01) -> None:
        super().__init__()
        self.embed = Dense(c_dim, w_dim) if c_dim else None
        inputs = latent_dim + (w_dim if c_dim else 0)
        widths = [inputs] + [w_dim] * layers
        self.layers = nn.ModuleList(Dense(i, o, activate=True, rate=rate) for i, o in pairwise(widths))

    def forward(
        self, z: Float[Tensor, "n z"] | None, c: Float[Tensor, "n c_dim"] | None
    ) -> Float[Tensor, "n w"]:
        """One w a row.

        Raises:
            ValueError: if a condition is missing, or has another length than the network's.
        """
        parts = [] if z is None else [z]
        if self.embed is not None:
            c_dim = self.embed.weight.shape[1]
            if c is None or c.shape[1] != c_dim:
                found = "none" if c is None else str(c.shape[1])
                raise ValueError(f"the network takes conditions of {c_dim} numbers; found: {found}")
            parts.append(self.embed(c))
        x = torch.cat([ops.normalize_second_moment(part) for part in parts], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x


class ModulatedConv(nn.Module):
    """A convolution whose input channels each sample scales by its style, with noise and leaky ReLU.

    From Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN". The weights are shared
    by the batch: the input is scaled before the convolution and the output after it, which is the same as,
    and faster than, a convolution of its own for each sample.

    Args:
        inputs: channels in.
        outputs: channels out.
        size: (height, width) of the output.
        w_dim: of w.
        up: double the sides.
    """

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], w_dim: int, *, up: bool = False
    ) -> None:
        super().__init__()
        # A transposed convolution has its inputs first.
        shape = (inputs, outputs, 3, 3) if up else (outputs, inputs, 3, 3)
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = Dense(w_dim, inputs, bias=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.noise_const: Tensor
        self.register_buffer("noise_const", torch.randn(size))
        self.up = up

    def forward(
        self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n w_dim"], noise: str, gain: float = 1.0
    ) -> Float[Tensor, "n o h2 w2"]:
        """The features; `noise` is random, const or none, and `gain` scales the output."""
        gain *= GAIN
        style = self.affine(w)
        energy = ops.energy(self.weight)
        scale = ops.demodulation(style, energy.T if self.up else energy) * gain
        bias, weight = (self.bias * gain).to(x.dtype), self.weight.to(x.dtype)
        x = ops.modulate(x, style.to(x.dtype))
        y = ops.up_conv(x, weight) if self.up else conv(x, weight, padding=1)
        return ops.finish(y, scale.to(y.dtype), bias, self._noise(y, noise, gain), SLOPE)

    def _noise(self, y: Tensor, noise: str, gain: float) -> Tensor | None:
        if noise == "none":
            return None
        if noise == "const":
            drawn = self.noise_const.expand(len(y), 1, -1, -1)
        else:
            assert noise == "random", noise
            drawn = torch.randn(len(y), 1, *y.shape[2:], device=y.device)
        return (drawn * (self.noise_strength * gain)).to(y.dtype)


class ToPicture(nn.Module):
    """Features -> a picture's channels: a modulated convolution without demodulation.

    Args:
        inputs: channels in.
        channels: of the picture.
        w_dim: of w.
        kernel: side of the kernel, odd.
    """

    def __init__(self, inputs: int, channels: int, w_dim: int, kernel: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = Dense(w_dim, inputs, bias=1.0)

    def forward(self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n c h w"]:
        """The picture, in single precision."""
        style = self.affine(w) * (1 / math.sqrt(self.weight[0].numel()))
        x = ops.modulate(x, style.to(x.dtype))
        y = conv(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=self.weight.shape[2] // 2)
        return y.to(self.weight.dtype)
