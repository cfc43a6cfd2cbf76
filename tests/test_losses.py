"""Losses and penalties against closed forms."""

import math

import pytest
import torch
from torch import nn

from kaleidogan.training.losses import (
    BCE,
    R1,
    GradientPenalty,
    NonSaturating,
    PathLength,
    Wasserstein,
    lazy_scale,
)


def test_at_logits_of_zero_each_player_is_at_log_2():
    zero = torch.zeros(4)
    assert NonSaturating().discriminator(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert NonSaturating().generator(zero).item() == pytest.approx(math.log(2))


def test_bce_with_a_label_of_one_is_the_non_saturating_loss():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 8, dtype=torch.float64) * 3
    torch.testing.assert_close(BCE().discriminator(real, fake), NonSaturating().discriminator(real, fake))
    torch.testing.assert_close(BCE().generator(fake), NonSaturating().generator(fake))


def test_smoothing_is_least_at_the_logit_of_the_label():
    logits = torch.linspace(-5, 5, 1001)
    fake = torch.full((1,), -100.0)
    values = [BCE(0.9).discriminator(logit[None], fake).item() for logit in logits]
    assert logits[values.index(min(values))].item() == pytest.approx(math.log(0.9 / 0.1), abs=0.01)
    with pytest.raises(ValueError, match=r"real_label 1\.2"):
        BCE(1.2)


def test_the_wasserstein_loss_is_a_difference_of_means_and_the_drift_a_mean_square():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-3.0, 5.0])
    assert Wasserstein(drift=0.0).discriminator(real, fake).item() == pytest.approx(1 - 2)
    assert Wasserstein(drift=0.1).discriminator(real, fake).item() == pytest.approx(1 - 2 + 0.1 * 5)
    assert Wasserstein().generator(fake).item() == pytest.approx(-1)
    assert Wasserstein().drift == 0.001


def test_the_gradient_penalty_of_a_linear_critic_is_the_squared_distance_of_its_slope_from_1():
    torch.manual_seed(0)
    slope = torch.randn(3 * 4 * 4, dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    penalty = GradientPenalty(weight=7.0)(lambda image: image.flatten(1) @ slope, real, lambda: fake)
    norm = slope.norm()
    torch.testing.assert_close(penalty, 7 * (norm - 1) ** 2)
    (gradient,) = torch.autograd.grad(penalty, slope)
    torch.testing.assert_close(gradient, 14 * (norm - 1) * slope / norm)


def test_the_gradient_penalty_looks_at_a_random_place_on_the_line_from_each_real_to_its_fake():
    torch.manual_seed(0)
    real, fake, seen = torch.randn(64, 3, 4, 4), torch.randn(64, 3, 4, 4), []
    GradientPenalty()(lambda image: seen.append(image) or image.sum([1, 2, 3]), real, lambda: fake)
    places = ((seen[0] - real) / (fake - real)).flatten(1)
    torch.testing.assert_close(places, places[:, :1].expand_as(places), atol=1e-3, rtol=1e-3)
    places = places.median(1).values.sort().values
    assert places.min() > 0
    assert places.max() < 1
    torch.testing.assert_close(places, (torch.arange(64) + 0.5) / 64, atol=0.15, rtol=0)


def test_the_gradient_penalty_sends_nothing_to_the_generator_and_survives_a_flat_critic():
    real, fake = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2, requires_grad=True)
    slope = torch.zeros(4, requires_grad=True)
    penalty = GradientPenalty(weight=10.0)(lambda image: image.flatten(1) @ slope, real, lambda: fake * 2)
    penalty.backward()
    assert penalty.item() == pytest.approx(10, rel=1e-5)
    assert fake.grad is None
    assert slope.grad.isfinite().all()


def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_weight():
    weight = torch.randn(3 * 4 * 4, dtype=torch.float64, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    penalty = R1(gamma=10.0)(lambda image: image.flatten(1) @ weight, images)
    torch.testing.assert_close(penalty, 5 * weight.square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 10 * weight)


def test_r1_of_any_network_is_its_plain_double_backward():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3, stride=2), nn.Tanh(), nn.Flatten()
    ).double()
    images = torch.randn(5, 3, 7, 7, dtype=torch.float64)

    def critic(image):
        return network(image).square().sum(1)

    found = R1(gamma=3.0)(critic, images)
    at = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    expected = 1.5 * slope.square().sum() / 5
    torch.testing.assert_close(found, expected)
    weights = [*network.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert not images.requires_grad


class Linear(nn.Module):
    """A generator whose pictures [1, 2, 3] are linear in w: for each layer a matrix, added up."""

    def __init__(self, num_ws=1):
        super().__init__()
        self.map = nn.Parameter(torch.randn(4, 5, dtype=torch.float64))
        self.matrices = nn.Parameter(torch.randn(num_ws, 5, 6, dtype=torch.float64))

    def styles(self, z, c=None):
        return (z.double() @ self.map)[:, None].expand(-1, len(self.matrices), -1)

    def synthesis(self, w):
        return torch.einsum("nli,lio->no", w, self.matrices).view(-1, 1, 2, 3)


class Curved(Linear):
    """One whose pictures are not."""

    def synthesis(self, w):
        return super().synthesis(w.sin() * 2).tanh() + super().synthesis(w**2)


def random_pictures(count, seed):
    """What `PathLength` draws, over the square root of the number of pixels."""
    torch.manual_seed(seed)
    return torch.randn(count, 1, 2, 3, dtype=torch.float64) / math.sqrt(6)


@pytest.mark.parametrize("num_ws", [1, 3])
def test_path_lengths_of_a_linear_generator_are_those_of_its_transpose(num_ws):
    torch.manual_seed(0)
    generator = Linear(num_ws)
    w = generator.styles(torch.randn(7, 4))
    y = random_pictures(7, seed=1).flatten(1)
    torch.manual_seed(1)
    found = PathLength().lengths(generator, w)
    back = torch.einsum("lio,no->nli", generator.matrices, y)  # A^T y for each layer
    torch.testing.assert_close(found, back.square().sum(2).mean(1).sqrt())


def test_path_lengths_do_not_grow_with_the_picture():
    """A picture of n equal pixels has n times the gradient's parts, each over the side: the same length."""

    class Flat(nn.Module):
        def __init__(self, side):
            super().__init__()
            self.side = side

        def synthesis(self, w):
            return w.sum([1, 2])[:, None, None, None].expand(-1, 1, self.side, self.side)

    torch.manual_seed(0)
    means = [
        PathLength().lengths(Flat(side), torch.zeros(4000, 1, 4).requires_grad_()).square().mean().item()
        for side in (2, 16)
    ]
    assert means == pytest.approx([4, 4], rel=0.1)


def test_the_mean_of_the_path_lengths_moves_a_hundredth_of_the_way():
    torch.manual_seed(0)
    generator, penalty = Linear(), PathLength().double()
    mean = 0.0
    for seed in range(3):
        z = torch.randn(8, 4)
        y = random_pictures(4, seed).flatten(1)  # of half the batch
        torch.manual_seed(seed)
        found = penalty(generator, z)
        lengths = (y @ generator.matrices[0].T).norm(dim=1)
        mean += 0.01 * (lengths.mean().item() - mean)
        assert penalty.mean.item() == pytest.approx(mean)
        torch.testing.assert_close(found, 2.0 * (lengths - mean).square().mean())
    assert list(penalty.state_dict()) == ["mean"]


@pytest.mark.parametrize(("batch", "shrink", "taken"), [(8, 2, 4), (8, 1, 8), (7, 2, 3), (1, 2, 1)])
def test_path_length_takes_a_part_of_the_batch(batch, shrink, taken):
    class Conditioned(Linear):
        def styles(self, z, c=None):
            self.seen = z, c
            return super().styles(z)

    generator, z, c = Conditioned(), torch.randn(batch, 4), torch.randn(batch, 2)
    PathLength(shrink=shrink)(generator, z, c)
    assert torch.equal(generator.seen[0], z[:taken])
    assert torch.equal(generator.seen[1], c[:taken])


def test_the_path_length_penaltys_gradient_is_that_of_plain_double_backward():
    torch.manual_seed(0)
    generator, penalty = Curved(num_ws=2), PathLength(weight=3.0, shrink=1).double()
    penalty.mean.fill_(0.7)
    z = torch.randn(6, 4, dtype=torch.float64)
    y = random_pictures(6, seed=2)
    torch.manual_seed(2)
    found = penalty(generator, z)
    w = generator.styles(z)
    (slope,) = torch.autograd.grad((generator.synthesis(w) * y).sum(), w, create_graph=True)
    lengths = slope.square().sum(2).mean(1).sqrt()
    mean = 0.7 + 0.01 * (lengths.detach().mean() - 0.7)
    expected = 3.0 * (lengths - mean).square().mean()
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, [generator.map, generator.matrices]),
        torch.autograd.grad(expected, [generator.map, generator.matrices]),
        strict=True,
    ):
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


def test_lazy_rates():
    assert lazy_scale([16]) == pytest.approx(16 / 17)
    assert lazy_scale([4]) == pytest.approx(4 / 5)
    assert lazy_scale([]) == lazy_scale([1]) == 1
    assert lazy_scale([1, 16]) == lazy_scale([16])
