"""Losses and penalties against closed forms."""

import math

import pytest
import torch

from kaleidogan.training.losses import BCE, R1, NonSaturating, lazy_scale


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


def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_weight():
    weight = torch.randn(3 * 4 * 4, dtype=torch.float64, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    penalty = R1(gamma=10.0)(lambda image: image.flatten(1) @ weight, images)
    torch.testing.assert_close(penalty, 5 * weight.square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 10 * weight)


def test_lazy_rates():
    assert lazy_scale([16]) == pytest.approx(16 / 17)
    assert lazy_scale([]) == 1
