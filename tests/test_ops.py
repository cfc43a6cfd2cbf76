"""The fast operations against plain twins: zeros put between pixels, and a convolution."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from kaleidogan.models import ops
from kaleidogan.models.layers import GAIN, SLOPE, ModulatedConv

SIZES = [(4, 4), (6, 10), (5, 3)]
EVEN = [(4, 4), (6, 10), (12, 8)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def filtered(x, gain=1.0, padding=0):
    """Each channel convolved with the normalised outer product of [1, 3, 3, 1]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    kernel = (torch.outer(taps, taps) * gain).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, [padding] * 4), kernel, groups=x.shape[1])


def spread(x):
    """A zero after each pixel, in both directions."""
    n, c, h, w = x.shape
    zeros = torch.zeros(n, c, h, 2, w, 2, dtype=x.dtype)
    zeros[:, :, :, 0, :, 0] = x
    return zeros.reshape(n, c, 2 * h, 2 * w)


def plain_upsample(x):
    return filtered(F.pad(spread(x), (2, 1, 2, 1)), gain=4.0)


def plain_downsample(x):
    return filtered(x, padding=1)[:, :, ::2, ::2]


def plain_up_conv(x, weight):
    return filtered(F.conv_transpose2d(x, weight, stride=2), gain=4.0, padding=1)


def twice_differentiable(of, *inputs):
    def squared(*inputs):
        return of(*inputs) ** 2  # so that there is a second derivative

    assert torch.autograd.gradcheck(squared, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, inputs, fast_mode=True)


# Filters


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsample_is_zeros_between_and_a_filter(size, layout):
    x = random(2, 3, *size).detach().to(memory_format=layout)
    found = ops.upsample(x)
    assert found.shape == (2, 3, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(found, plain_upsample(x))


@pytest.mark.parametrize("size", EVEN)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_downsample_is_a_filter_and_every_second_pixel(size, layout):
    x = random(2, 3, *size).detach().to(memory_format=layout)
    torch.testing.assert_close(ops.downsample(x), plain_downsample(x))


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (5, 7)])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_blur_is_a_filter(size, padding):
    x = random(2, 3, *size)
    found = ops.blur(x, padding, 2.0)
    assert found.shape[2:] == (size[0] + 2 * padding - 3, size[1] + 2 * padding - 3)
    torch.testing.assert_close(found, filtered(x, 2.0, padding))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filters_keep_the_type(dtype):
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    # The taps are exact in bfloat16, so only the products are rounded.
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {}
    for fast, plain in ((ops.upsample, plain_upsample), (ops.downsample, plain_downsample)):
        assert fast(x).dtype == dtype
        torch.testing.assert_close(fast(x).float(), plain(x.float()), **tolerance)


@pytest.mark.parametrize("size", EVEN)
def test_downsample_is_a_quarter_of_upsamples_adjoint(size):
    small, large = random(2, 3, *size), random(2, 3, 2 * size[0], 2 * size[1])
    there, back = (ops.upsample(small) * large).sum(), (small * ops.downsample(large)).sum()
    torch.testing.assert_close(there, 4 * back)


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_blurs_adjoint_is_a_blur_with_the_rest_of_the_padding(padding):
    x = random(2, 3, 6, 5)
    y = torch.randn_like(ops.blur(x, padding))
    torch.testing.assert_close((ops.blur(x, padding) * y).sum(), (x * ops.blur(y, 3 - padding)).sum())


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_filters_can_be_differentiated_twice(size):
    twice_differentiable(ops.upsample, random(2, 2, *size))
    twice_differentiable(ops.downsample, random(2, 2, 2 * size[0], 2 * size[1]))
    twice_differentiable(lambda x: ops.blur(x, 1, 4.0), random(2, 2, *size))
    twice_differentiable(lambda x: ops.blur(x, 2), random(2, 2, *size))


def test_a_flat_picture_keeps_its_brightness_inside():
    flat = torch.full((1, 3, 8, 8), 0.7, dtype=torch.float64)
    for found, edge in ((ops.upsample(flat), 2), (ops.downsample(flat), 1), (ops.blur(flat, 2), 2)):
        inside = found[:, :, edge:-edge, edge:-edge]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.7))
        assert (found[:, :, 0] < 0.7).all()  # zeros beyond the border


def test_the_way_up_and_the_way_down_are_convolutions_and_filters():
    x, up, down, bias = random(2, 3, 5, 4), random(3, 2, 3, 3), random(2, 3, 3, 3), random(2)
    torch.testing.assert_close(ops.up_conv(x, up), plain_up_conv(x, up))
    assert ops.up_conv(x, up).shape == (2, 2, 10, 8)
    x = random(2, 3, 8, 6)
    expected = F.conv2d(filtered(x, padding=2), down, bias, stride=2)
    torch.testing.assert_close(ops.down_conv(x, down, bias), expected)
    assert expected.shape == (2, 2, 4, 3)


def test_the_ways_up_and_down_can_be_differentiated_twice():
    twice_differentiable(ops.up_conv, random(2, 2, 3, 4), random(2, 3, 3, 3))
    twice_differentiable(ops.down_conv, random(2, 2, 6, 8), random(3, 2, 3, 3), random(3))


# Scales


def test_a_normalised_row_has_a_mean_square_of_one_whatever_its_length():
    x = random(5, 7)
    found = ops.normalize_second_moment(x)
    torch.testing.assert_close(found.square().mean(1), torch.ones(5).double())
    torch.testing.assert_close(ops.normalize_second_moment(x * 1000), found)
    assert ops.normalize_second_moment(torch.zeros(1, 7)).isfinite().all()


def test_modulate_and_channel_dot_are_plain_products():
    x, y, scale = random(3, 4, 5, 6), random(3, 4, 5, 6), random(3, 4)
    torch.testing.assert_close(ops.modulate(x, scale), x * scale[:, :, None, None])
    torch.testing.assert_close(ops.channel_dot(x, y), (x * y).sum([2, 3]))
    twice_differentiable(ops.modulate, x, scale)
    twice_differentiable(ops.channel_dot, x, y)


@pytest.mark.parametrize("has_noise", [True, False])
def test_finish_is_a_scale_a_bias_noise_and_a_leaky_relu(has_noise):
    x, scale, bias = random(3, 4, 5, 6), random(3, 4), random(4)
    noise = random(3, 1, 5, 6) if has_noise else None

    def plain(x, scale, bias, noise=None):
        y = x * scale[:, :, None, None] + bias[:, None, None]
        return F.leaky_relu(y if noise is None else y + noise, 0.2)

    inputs = [x, scale, bias, *([noise] if has_noise else [])]
    found = ops.finish(x, scale, bias, noise, 0.2)
    torch.testing.assert_close(found, plain(*inputs))
    toward = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, inputs, toward) for y in (found, plain(*inputs)))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    twice_differentiable(lambda x, s, b, n=None: ops.finish(x, s, b, n, 0.2), *inputs)


def test_large_pictures_are_worked_on_in_portions_with_the_same_result():
    x, y = torch.randn(3, 8, 160, 160), torch.randn(3, 8, 160, 160)  # 0.8 MB each
    scale, bias, noise = torch.randn(3, 8), torch.randn(8), torch.randn(3, 1, 160, 160)
    expected = F.leaky_relu(x * scale[:, :, None, None] + bias[:, None, None] + noise, 0.2)
    torch.testing.assert_close(ops.finish(x, scale, bias, noise, 0.2), expected)
    torch.testing.assert_close(ops.channel_dot(x, y), (x * y).sum([2, 3]), rtol=1e-4, atol=1e-2)


# Modulated convolutions


def naive(layer, x, w):
    """Karras et al. 2020: a convolution of its own for each sample, w'' = s w / |s w|."""
    style = layer.affine(w)
    weight = layer.weight.transpose(0, 1) if layer.up else layer.weight  # outputs first
    weight = weight[None] * style[:, None, :, None, None]
    weight = weight / (weight.square().sum([2, 3, 4], keepdim=True) + 1e-8).sqrt()
    n, o, i = weight.shape[:3]
    x = x.reshape(1, n * i, *x.shape[2:])
    if layer.up:
        grouped = weight.transpose(1, 2).reshape(n * i, o, 3, 3)
        y = F.conv_transpose2d(x, grouped, stride=2, groups=n)
        y = filtered(y, gain=4.0, padding=1)
    else:
        y = F.conv2d(x, weight.reshape(n * o, i, 3, 3), padding=1, groups=n)
    y = y.reshape(n, o, *y.shape[2:]) + layer.noise_const * layer.noise_strength
    return F.leaky_relu(y + layer.bias[:, None, None], 0.2) * math.sqrt(2)


def modulated(up, size=(6, 4)):
    layer = ModulatedConv(3, 5, (2 * size[0], 2 * size[1]) if up else size, 7, up=up).double()
    with torch.no_grad():
        layer.bias.normal_()
        layer.noise_strength.fill_(0.3)
    return layer, random(4, 3, *size), random(4, 7)


@pytest.mark.parametrize("up", [False, True])
def test_a_modulated_convolution_is_the_published_one(up):
    layer, x, w = modulated(up)
    found, expected = layer(x, w, "const"), naive(layer, x, w)
    torch.testing.assert_close(found, expected)
    inputs = [x, w, *layer.parameters()]
    toward = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, inputs, toward) for y in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("up", [False, True])
def test_a_modulated_convolution_can_be_differentiated_twice(up):
    layer, x, w = modulated(up, size=(3, 2))
    twice_differentiable(lambda x, w: layer(x, w, "const"), x, w)


def test_demodulation_makes_the_styles_length_do_nothing():
    layer, x, w = modulated(up=False)
    layer.affine.bias.data.zero_()  # so that the style is linear in w
    torch.testing.assert_close(layer(x, w * 9, "none"), layer(x, w, "none"))


def test_a_modulated_convolution_keeps_unit_variance():
    layer = ModulatedConv(64, 64, (16, 16), 32)
    y = layer(torch.randn(16, 64, 16, 16), torch.randn(16, 32), "none")
    before = torch.where(y < 0, y / SLOPE, y) / GAIN
    assert before[:, :, 2:-2, 2:-2].var().item() == pytest.approx(1, abs=0.05)


# The minibatch's deviation


def test_minibatch_std_by_hand():
    # Group 0 is samples 0 and 2, group 1 is 1 and 3: i mod 2.
    x = torch.tensor([[1.0, 2.0], [5.0, 5.0], [3.0, 8.0], [5.0, 7.0]])[:, :, None, None].expand(-1, -1, 2, 3)
    found = ops.minibatch_std(x, 2)
    assert torch.equal(found[:, :2], x)
    # Deviations 1 and 3 of the two channels have a mean of 2; 0 and 1 of 0.5.
    expected = torch.tensor([2, 0.5, 2, 0.5])[:, None, None].expand(-1, 2, 3)
    torch.testing.assert_close(found[:, 2], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("n", "group", "taken"), [(6, 4, 3), (8, 4, 4), (4, 32, 4), (3, 4, 3), (10, 4, 2)])
def test_a_group_that_does_not_divide_the_batch_gives_way_to_the_largest_that_does(n, group, taken):
    x = torch.randn(n, 2, 3, 3)
    grouped = x.reshape(taken, n // taken, 2, 3, 3)
    deviation = grouped.std(0, correction=0).mean([1, 2, 3])
    expected = torch.stack([deviation[i % (n // taken)] for i in range(n)])
    found = ops.minibatch_std(x, group)[:, 2]
    torch.testing.assert_close(found, expected[:, None, None].expand(-1, 3, 3), atol=1e-5, rtol=1e-5)


def test_equal_pictures_do_not_deviate_and_their_gradient_is_finite():
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    found = ops.minibatch_std(x, 4)
    torch.testing.assert_close(found[:, 2], torch.zeros(4, 3, 3), atol=2e-4, rtol=0)
    found.sum().backward()
    assert x.grad.isfinite().all()
