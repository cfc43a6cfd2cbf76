"""Our convolutions against PyTorch's, and what their derivatives are for."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.profiler import ProfilerActivity, profile

from kaleidogan.models.convolutions import conv, conv_transpose, without_weight_gradients
from kaleidogan.models.stylegan2 import Generator
from kaleidogan.training.losses import R1, PathLength

CONVOLUTIONS = [
    # kernel, stride, padding, (height, width)
    (3, 1, 1, (5, 6)),
    (3, 1, 0, (6, 5)),
    (1, 1, 0, (4, 3)),
    (3, 2, 0, (7, 9)),  # a blurred picture of even size, as the discriminator halves it
    (3, 2, 0, (6, 8)),  # the last row and column are never looked at
    (3, 2, 0, (7, 8)),
    (3, 2, 1, (7, 6)),
    (1, 2, 0, (6, 5)),
]
TRANSPOSED = [(3, 2, (3, 4)), (3, 2, (1, 1)), (3, 1, (4, 3)), (2, 2, (3, 2))]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).requires_grad_()


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CONVOLUTIONS)
def test_a_convolution_and_its_gradients_are_pytorchs(kernel, stride, padding, size):
    inputs = random(2, 3, *size), random(4, 3, kernel, kernel), random(4)
    found = conv(*inputs, stride=stride, padding=padding)
    expected = F.conv2d(*inputs, stride=stride, padding=padding)
    torch.testing.assert_close(found, expected)
    toward = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, toward), torch.autograd.grad(expected, inputs, toward), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kernel", "stride", "size"), TRANSPOSED)
def test_a_transposed_convolution_and_its_gradients_are_pytorchs(kernel, stride, size):
    inputs = random(2, 3, *size), random(3, 4, kernel, kernel)
    found = conv_transpose(*inputs, stride=stride)
    expected = F.conv_transpose2d(*inputs, stride=stride)
    torch.testing.assert_close(found, expected)
    toward = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, toward), torch.autograd.grad(expected, inputs, toward), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CONVOLUTIONS)
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_convolution_can_be_differentiated_twice(kernel, stride, padding, size, has_bias):
    inputs = random(2, 2, *size), random(3, 2, kernel, kernel), random(3) if has_bias else None

    def squared(x, weight, bias):
        return conv(x, weight, bias, stride=stride, padding=padding) ** 2

    assert torch.autograd.gradcheck(squared, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, inputs, fast_mode=True)


@pytest.mark.parametrize(("kernel", "stride", "size"), TRANSPOSED)
def test_a_transposed_convolution_can_be_differentiated_twice(kernel, stride, size):
    inputs = random(2, 2, *size), random(2, 3, kernel, kernel)

    def squared(x, weight):
        return conv_transpose(x, weight, stride=stride) ** 2

    assert torch.autograd.gradcheck(squared, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, inputs, fast_mode=True)


def test_what_a_strided_convolution_never_looks_at_has_no_gradient():
    x, weight = random(1, 2, 6, 8), random(3, 2, 3, 3)
    (gradient,) = torch.autograd.grad(conv(x, weight, stride=2).square().sum(), x)
    assert (gradient[:, :, 5] == 0).all()
    assert (gradient[:, :, :, 7] == 0).all()
    assert (gradient[:, :, :5, :7] != 0).all()


def test_the_transposed_convolution_is_the_adjoint():
    x, weight, y = random(2, 3, 9, 7), random(4, 3, 3, 3), random(2, 4, 4, 3)
    there = (conv(x, weight, stride=2) * y).sum()
    torch.testing.assert_close(there, (x * conv_transpose(y, weight)).sum())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memorys_layout_does_nothing(layout):
    x, weight = random(2, 4, 9, 9), random(8, 4, 3, 3)
    expected = torch.autograd.grad(F.conv2d(x, weight, stride=2).square().sum(), [x, weight])
    laid = x.detach().to(memory_format=layout).requires_grad_()
    found = torch.autograd.grad(conv(laid, weight, stride=2).square().sum(), [laid, weight])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def weights_of_a_critic():
    """Of three layers: without stride, with stride 2, and transposed."""
    return [random(*shape, dtype=torch.float32) for shape in ((32, 3, 3, 3), (32, 32, 3, 3), (32, 32, 3, 3))]


def criticise(x, weights):
    """Logits of a critic that is not linear, so that every weight has a part in R1's gradient."""
    first, second, third = (w.to(x.dtype) / w[0].numel() ** 0.5 for w in weights)
    x = F.leaky_relu(conv(x, first, padding=1), 0.2)
    x = F.leaky_relu(conv(x, second, stride=2), 0.2)
    return (conv_transpose(x, third).float() ** 2).mean([1, 2, 3])


@pytest.mark.parametrize("size", [16, 32])
def test_second_derivatives_in_bf16_point_the_way_of_those_in_fp32(size):
    weights, images = weights_of_a_critic(), torch.randn(4, 3, size, size)
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        penalty = R1(gamma=2.0)(lambda x, dtype=dtype: criticise(x.to(dtype), weights), images)
        gradients[dtype] = torch.autograd.grad(penalty, weights)
    for ours, exact in zip(gradients[torch.bfloat16], gradients[torch.float32], strict=True):
        assert torch.cosine_similarity(ours.flatten().double(), exact.flatten().double(), dim=0) > 0.999


def count_weight_gradients(of):
    """How many weights' gradients are computed meanwhile."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        of()
    return sum(event.count for event in seen.key_averages() if event.key == "_WeightGradient")


def test_the_economy_computes_no_weights_gradient_and_changes_none():
    weights, images = weights_of_a_critic(), torch.randn(2, 3, 16, 16, requires_grad=True)
    found = []

    def differentiate():
        found.append(torch.autograd.grad(criticise(images, weights).sum(), images, create_graph=True)[0])

    assert count_weight_gradients(differentiate) == 3
    with without_weight_gradients():
        assert count_weight_gradients(differentiate) == 0
    plain, economic = found
    assert torch.equal(plain, economic)
    for one, other in zip(
        *(torch.autograd.grad(gradient.square().sum(), weights) for gradient in found), strict=True
    ):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_both_penalties_are_economical():
    weights, images = weights_of_a_critic(), torch.randn(2, 3, 16, 16)
    assert count_weight_gradients(lambda: R1(1.0)(lambda x: criticise(x, weights), images)) == 0
    generator = Generator(resolution=(12, 12), channel_base=64, channel_max=4, latent_dim=4, w_dim=4)
    assert count_weight_gradients(lambda: PathLength()(generator, torch.randn(4, 4))) == 0


def test_the_economy_ends_after_an_error():
    x, weight = random(1, 2, 4, 4), random(2, 2, 3, 3)
    with pytest.raises(RuntimeError, match="broke off"), without_weight_gradients():
        raise RuntimeError("broke off")
    assert torch.autograd.grad(conv(x, weight).sum(), weight)[0].abs().sum() > 0
