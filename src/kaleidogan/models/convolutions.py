"""Convolutions that can be differentiated twice, fast and in half precision.

A convolution is bilinear: each of its derivatives is one of three operations, and the derivatives of those
are the three again. Written out, they serve R1 and path length, which differentiate a gradient. PyTorch's own
second derivative turns a weight's gradient into a convolution whose kernel is as large as the picture; it is
slow, and in bfloat16 on processors with AMX it is wrong (PyTorch 2.15 with oneDNN 3.13: noise from 16 px on;
see `tests/test_convolutions.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

Size = tuple[int, int]
_economy = {"weights": True}


def conv(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i k k"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "n o h2 w2"]:
    """A convolution, as `torch.nn.functional.conv2d`; all of one type."""
    return _Conv.apply(x, weight, bias, stride, padding)


def conv_transpose(
    x: Float[Tensor, "n i h w"], weight: Float[Tensor, "i o k k"], *, stride: int = 2, padding: int = 0
) -> Float[Tensor, "n o h2 w2"]:
    """A transposed convolution, as `torch.nn.functional.conv_transpose2d`."""
    height, width = ((side - 1) * stride - 2 * padding + weight.shape[2] for side in x.shape[2:])
    return _Adjoint.apply(x, weight, stride, padding, (height, width))


@contextmanager
def without_weight_gradients() -> Iterator[None]:
    """Leave the weights' gradients out of `torch.autograd.grad` with respect to pictures or styles.

    They are not asked for there, but a Function cannot know that. The graph that is made of such a gradient
    still leads back to the weights.
    """
    before, _economy["weights"] = _economy["weights"], False
    try:
        yield
    finally:
        _economy["weights"] = before


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        return (
            _Adjoint.apply(gradient, weight, ctx.stride, ctx.padding, tuple(x.shape[2:]))
            if wants_x
            else None,
            _WeightGradient.apply(x, gradient, ctx.stride, ctx.padding, weight.shape[2])
            if wants_weight and _economy["weights"]
            else None,
            gradient.sum([0, 2, 3]) if wants_bias and _economy["weights"] else None,
            None,
            None,
        )


class _Adjoint(torch.autograd.Function):
    """What a convolution's output gradient makes of its input; `size` is the input's."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, stride: int, padding: int, size: Size) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.stride, ctx.padding = stride, padding
        if stride == 2 and weight.shape[2] == 3 and padding == 0 and gradient.device.type == "cpu":
            return _pad_to(_spread_adjoint(gradient, weight), size)
        return _adjoint(gradient, weight, stride, padding, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight = ctx.saved_tensors
        (second,) = gradients
        wants_gradient, wants_weight, *_ = ctx.needs_input_grad
        return (
            _Conv.apply(second, weight, None, ctx.stride, ctx.padding) if wants_gradient else None,
            _WeightGradient.apply(second, gradient, ctx.stride, ctx.padding, weight.shape[2])
            if wants_weight and _economy["weights"]
            else None,
            None,
            None,
            None,
        )


class _WeightGradient(torch.autograd.Function):
    """What a convolution's input and output gradient make of its weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor, stride: int, padding: int, kernel: int) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.stride, ctx.padding = stride, padding
        if stride == 2 and kernel == 3 and padding == 0 and x.device.type == "cpu":
            return _spread_weight_gradient(x, gradient)
        return _weight_gradient(x, gradient, (kernel, kernel), stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, gradient = ctx.saved_tensors
        (second,) = gradients
        wants_x, wants_gradient, *_ = ctx.needs_input_grad
        return (
            _Adjoint.apply(gradient, second, ctx.stride, ctx.padding, tuple(x.shape[2:]))
            if wants_x
            else None,
            _Conv.apply(x, second, None, ctx.stride, ctx.padding) if wants_gradient else None,
            None,
            None,
            None,
        )


def _adjoint(gradient: Tensor, weight: Tensor, stride: int, padding: int, size: Size) -> Tensor:
    like = _empty(gradient, (len(gradient), weight.shape[1], *size))
    found = torch.ops.aten.convolution_backward(
        gradient,
        like,
        weight,
        None,
        [stride] * 2,
        [padding] * 2,
        [1, 1],
        False,
        [0, 0],
        1,
        [True, False, False],
    )
    return found[0]


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: Size, stride: int, padding: int) -> Tensor:
    like = _empty(x, (gradient.shape[1], x.shape[1], *kernel))
    found = torch.ops.aten.convolution_backward(
        gradient, x, like, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
    )
    return found[1]


def _spread_adjoint(x: Tensor, weight: Tensor) -> Tensor:
    """The adjoint of a 3x3 convolution of stride 2, as those of four without stride that are interleaved.

    An even row of the output takes the kernel's outer two rows, an odd one the middle; so do the columns. On
    a processor that is 1.3 to 3 times as fast as the transposed convolution.
    """
    n, _, h, w = x.shape
    y = _empty(x, (n, weight.shape[1], 2 * h + 1, 2 * w + 1))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        kernel = weight[:, :, row::2, column::2].contiguous(memory_format=torch.channels_last)
        y[:, :, row::2, column::2] = _adjoint(x, kernel, 1, 0, (h + 1 - row, w + 1 - column))
    return y


def _spread_weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The weight's gradient of a 3x3 convolution of stride 2, from the even and the odd rows and columns."""
    h, w = gradient.shape[2:]
    x = x[:, :, : 2 * h + 1, : 2 * w + 1]
    found = _empty(x, (gradient.shape[1], x.shape[1], 3, 3))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = x[:, :, row::2, column::2].contiguous(memory_format=torch.channels_last)
        kernel = (2 - row, 2 - column)
        found[:, :, row::2, column::2] = _weight_gradient(part, gradient, kernel, 1, 0)
    return found


def _empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Memory laid out as channels-last: to mix layouts takes several times as long."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _pad_to(y: Tensor, size: Size) -> Tensor:
    """Append zeros: rows and columns that a strided convolution never looked at."""
    return F.pad(y, (0, size[1] - y.shape[3], 0, size[0] - y.shape[2])) if y.shape[2:] != size else y
