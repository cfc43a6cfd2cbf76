"""Filters and convolutions as functions: tensors in, tensors out, no parameters.

Written to be fast in half precision and under double differentiation; each has a plain twin in the tests.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from kaleidogan.models.convolutions import conv, conv_transpose

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The low-pass filter of StyleGAN2's resampling, along one axis, before it is normalised."""


def fir(gain: float, like: Tensor) -> Tensor:
    """The low-pass filter [4, 4] of StyleGAN2 as a depthwise kernel for a picture's channels.

    Args:
        gain: sum of the taps; 4 makes up for the zeros that upsampling inserts.
        like: whose type, device and channels the kernel has.
    """
    taps = torch.tensor(TAPS, dtype=torch.float32, device=like.device)
    kernel = torch.outer(taps, taps) * (gain / sum(TAPS) ** 2)
    return kernel.to(like.dtype).expand(like.shape[1], 1, 4, 4)


class _Blur(torch.autograd.Function):
    """Depthwise filter of stride 1. Its own adjoint, since the taps are symmetric.

    PyTorch's backward of a depthwise convolution takes 6 times as long as the forward, which serves here both
    ways, and again for the second derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, gain: float) -> Tensor:
        ctx.padding, ctx.gain = padding, gain
        return F.conv2d(x, fir(gain, x), padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Blur.apply(gradients[0], 3 - ctx.padding, ctx.gain), None, None


class _Downsample(torch.autograd.Function):
    """Depthwise filter, then every second pixel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, fir(1.0, x), padding=1, stride=2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor]:
        return (_Upsample.apply(gradients[0], 1.0),)


class _Upsample(torch.autograd.Function):
    """Zeros between the pixels, then the filter: the adjoint of `_Downsample`, but for the gain."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: float) -> Tensor:
        ctx.gain = gain
        kernel = fir(gain, x)
        n, c, h, w = x.shape
        y = torch.empty(
            (n, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
        )
        # An even row of the output sees the filter's even taps, an odd one the odd; so do the columns.
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            part = F.conv2d(x, kernel[:, :, row::2, column::2], padding=1, groups=c)
            y[:, :, row::2, column::2] = part[:, :, row : row + h, column : column + w]
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Downsample.apply(gradients[0]) * ctx.gain, None


def blur(x: Float[Tensor, "n c h w"], padding: int, gain: float = 1.0) -> Float[Tensor, "n c h2 w2"]:
    """Low-pass filter with zeros beyond the border: each side grows by 2 * padding - 3 pixels."""
    return _Blur.apply(x, padding, gain)


def upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Double a picture's sides with the low-pass filter, keeping its brightness."""
    return _Upsample.apply(x, 4.0)


def downsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Halve a picture's sides with the low-pass filter."""
    return _Downsample.apply(x)


def up_conv(x: Float[Tensor, "n i h w"], weight: Float[Tensor, "i o 3 3"]) -> Float[Tensor, "n o h2 w2"]:
    """Double the sides by a transposed convolution and the low-pass filter (StyleGAN2's way up)."""
    return blur(conv_transpose(x, weight), padding=1, gain=4.0)


def down_conv(
    x: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "n o h2 w2"]:
    """Halve the sides by the low-pass filter and a strided convolution (StyleGAN2's way down)."""
    return conv(blur(x, padding=2), weight, bias, stride=2)


def working_type(like: Tensor) -> torch.dtype:
    """The type to compute in: autocast's where it is on, else a parameter's own.

    The networks convert what is large themselves and switch autocast off: it would convert the same weights
    again at each use, and keep converted weights from before an optimiser's step.
    """
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


def normalize_second_moment(x: Float[Tensor, "n d"], eps: float = 1e-8) -> Float[Tensor, "n d"]:
    """Scale each row so that its mean square is 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def pixel_norm(x: Float[Tensor, "n c h w"], eps: float = 1e-8) -> Float[Tensor, "n c h w"]:
    """Scale each pixel's channels so that their mean square is 1 (Karras et al. 2018)."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class _Energy(torch.autograd.Function):
    """Squared norms of kernels, whose gradient PyTorch takes three goes through the memory for."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight.square().sum([2, 3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return weight * (2 * gradients[0])[:, :, None, None]


def energy(weight: Float[Tensor, "o i k k"]) -> Float[Tensor, "o i"]:
    """The squared norm of each kernel, for `demodulation`."""
    return _Energy.apply(weight)


def demodulation(
    style: Float[Tensor, "n i"], energy: Float[Tensor, "o i"], eps: float = 1e-8
) -> Float[Tensor, "n o"]:
    """By what to scale a modulated convolution's outputs so that they keep unit variance.

    From Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN": the norm of each
    output's modulated weights, found without making those weights.

    Args:
        style: of each input channel.
        energy: the kernels' squared norms.
        eps: keeps it finite.
    """
    return (style.square() @ energy.T + eps).rsqrt()


class _Finish(torch.autograd.Function):
    """Scale, bias, noise and leaky ReLU in one go through the memory; see `finish`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, noise: Tensor | None, slope: float
    ) -> Tensor:
        y = torch.empty_like(x)
        shift = bias[:, None, None]
        for part in _portions(x):
            torch.mul(x[part], scale[part, :, None, None], out=y[part])
            y[part].add_(shift)
            if noise is not None:
                y[part].add_(noise[part])
            F.leaky_relu_(y[part], slope)
        ctx.save_for_backward(x, scale, y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, y = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradients[0], y, ctx.slope, True)
        wants_x, wants_scale, wants_bias, wants_noise, _ = ctx.needs_input_grad
        return (
            gradient * scale[:, :, None, None] if wants_x else None,
            channel_dot(gradient, x) if wants_scale else None,
            gradient.sum([0, 2, 3]) if wants_bias else None,
            gradient.sum(1, keepdim=True) if wants_noise else None,
            None,
        )


class _ChannelDot(torch.autograd.Function):
    """Sum over the pixels of a product, without the product in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return torch.cat([(x[part] * y[part]).sum([2, 3]) for part in _portions(x)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = gradients[0][:, :, None, None]
        wants_x, wants_y = ctx.needs_input_grad
        return gradient * y if wants_x else None, gradient * x if wants_y else None


class _Modulate(torch.autograd.Function):
    """Scale each sample's channels; see `modulate`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * scale[:, :, None, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        wants_x, wants_scale = ctx.needs_input_grad
        return (
            modulate(gradients[0], scale) if wants_x else None,
            channel_dot(gradients[0], x) if wants_scale else None,
        )


PORTION = 2**20
"""Bytes that several operations in a row work on at once on a processor, so that they stay in its cache."""


def _portions(x: Tensor) -> list[slice]:
    """Cut a batch into portions that fit a processor's cache; a GPU takes it whole."""
    n = len(x)
    size = n if x.device.type != "cpu" else max(1, PORTION // (x[0].numel() * x.element_size()))
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def modulate(x: Float[Tensor, "n c h w"], scale: Float[Tensor, "n c"]) -> Float[Tensor, "n c h w"]:
    """Scale each sample's channels."""
    return _Modulate.apply(x, scale)


def channel_dot(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
    """Sum x * y over the pixels."""
    return _ChannelDot.apply(x, y)


def finish(
    x: Float[Tensor, "n c h w"],
    scale: Float[Tensor, "n c"],
    bias: Float[Tensor, " c"],
    noise: Float[Tensor, "n 1 h w"] | None,
    slope: float,
) -> Float[Tensor, "n c h w"]:
    """leaky_relu(x * scale + bias + noise)."""
    return _Finish.apply(x, scale, bias, noise, slope)


def minibatch_std(x: Float[Tensor, "n c h w"], group: int) -> Float[Tensor, "n c1 h w"]:
    """Append a channel that says how much the pictures of a group differ (Karras et al. 2018).

    Sample i belongs to group i mod (n / group). Where the group size does not divide n, the largest one
    below that does is taken.
    """
    n, _, h, w = x.shape
    size = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(size, n // size, -1)
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=1)
    channel = deviation.repeat(size)[:, None, None, None].expand(n, 1, h, w)
    return torch.cat([x, channel.to(x.dtype)], dim=1)
