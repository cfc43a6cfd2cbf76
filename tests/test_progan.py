"""ProGAN: what is published, and its gradients."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from kaleidogan.models.growing import double, halve
from kaleidogan.models.progan import Discriminator, Generator
from kaleidogan.models.stylegan2 import stage_channels
from kaleidogan.training.losses import GradientPenalty, NonSaturating, Wasserstein
from kaleidogan.training.modules import ProGAN

TINY = {"channel_base": 64, "channel_max": 4}
WIDTHS = [512, 512, 512, 512, 256, 128, 64, 32, 16]
"""The paper's table 2, from 4 to 1024 px."""
STEP = 1e-7
"""Of finite differences: short, since the penalty jumps where a leaky ReLU bends."""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Published facts


def test_channels_at_each_level_are_the_published():
    assert stage_channels((1024, 1024), 16384, 512) == WIDTHS


def test_the_published_networks_for_1024_px_have_23_million_parameters_each():
    with torch.device("meta"):
        generator = Generator(resolution=(1024, 1024), grow_from=1024)
        discriminator = Discriminator(resolution=(1024, 1024), grow_from=1024)
    steps = list(pairwise(WIDTHS))
    # Two convolutions of 3x3 a block, each with its biases, and one of 1x1 to the picture.
    expected = 512 * 8192 + 8192 + 9 * 512**2 + 512 + sum(9 * (i * o + o * o) + 2 * o for i, o in steps)
    assert count(generator) == expected + 16 * 3 + 3
    expected = 16 + 3 * 16 + sum(9 * (o * o + o * i) + o + i for i, o in steps)
    assert count(discriminator) == expected + 9 * 513 * 512 + 512 + 8192 * 512 + 512 + 512 + 1
    for network in (generator, discriminator):
        assert count(network) / 1e6 == pytest.approx(23.1, abs=0.05)


def test_batches_and_rates_of_each_level_are_the_published():
    gan = ProGAN(resolution=1024, grow_from="base", **TINY)
    assert gan.level_batches == [128, 128, 128, 64, 32, 16, 8, 4, 4]
    assert gan.level_rates == [0.001] * 8 + [0.0015]
    assert (gan.hparams.batch_size, gan.learning_rate) == (4, 0.0015)
    gan = ProGAN(resolution=1024, grow_from=512, batch_size=6, learning_rate=2e-3, **TINY)
    assert (gan.level_batches, gan.level_rates) == ([6, 6], [2e-3, 2e-3])
    gan = ProGAN(resolution=(64, 128), **TINY)  # a square of equal area has sides of 91 px
    assert (gan.level_batches, gan.level_rates) == ([16], [1e-3])


def test_the_game_is_the_published():
    gan = ProGAN(resolution=16, **TINY)
    assert isinstance(gan.adversarial, Wasserstein)
    assert gan.adversarial.drift == 0.001
    (penalty,) = gan.penalties.values()
    assert isinstance(penalty, GradientPenalty)
    assert (penalty.weight, penalty.every) == (10.0, 1)
    assert (gan.betas, gan.d_steps) == ((0.0, 0.99), 1)
    for optimizer in gan.configure_optimizers():
        assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)
        assert optimizer.param_groups[0]["lr"] == 0.001
    # 0.999 a step of 16 images.
    assert 16 * math.log(0.5) / math.log(0.999) == pytest.approx(11_000, rel=0.01)


def test_the_other_loss_goes_with_r1():
    gan = ProGAN(resolution=16, loss="non_saturating", **TINY)
    assert isinstance(gan.adversarial, NonSaturating)
    assert list(gan.penalties) == ["penalty/r1"]
    assert ProGAN(resolution=16, loss="non_saturating", r1_gamma=0.0, **TINY).penalties == {}


def test_a_batch_that_the_minibatch_deviation_cannot_group_is_refused():
    with pytest.raises(ValueError, match="5 pictures at a time"):
        ProGAN(resolution=16, batch_size=10, accumulate=2, **TINY)


# The generator


def test_features_have_unit_mean_square_and_the_latents_length_does_nothing():
    torch.manual_seed(0)
    generator, seen = Generator(resolution=(32, 32), latent_dim=6, **TINY), []
    for block in generator.blocks:
        block.register_forward_hook(lambda block, args, x: seen.append(x))
    z = torch.randn(3, 6)
    picture = generator(z)
    assert [x.shape[2] for x in seen] == [8, 16, 32]
    for x in seen:
        # The 1e-8 in the root shows where all features are small.
        torch.testing.assert_close(x.square().mean(1), torch.ones(3, *x.shape[2:]), atol=1e-3, rtol=0)
    torch.testing.assert_close(generator(5 * z), picture, atol=1e-3, rtol=0)


def test_the_last_layer_is_linear_and_nothing_bounds_the_picture():
    torch.manual_seed(0)
    generator, z = Generator(resolution=(16, 16), latent_dim=6, **TINY), torch.randn(3, 6)
    picture = generator(z)
    with torch.no_grad():
        for parameter in generator.to_picture.parameters():
            parameter.mul_(-100)
    torch.testing.assert_close(generator(z), -100 * picture)
    assert generator(z).abs().max() > 10


def test_weights_begin_as_n01_and_biases_at_0():
    torch.manual_seed(0)
    shared = {"resolution": (16, 16), "channel_max": 128}
    generator, discriminator = Generator(**shared), Discriminator(**shared)
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                assert parameter.abs().max() == 0
            elif parameter.numel() > 10_000:
                assert parameter.std().item() == pytest.approx(1, abs=0.05), name


def test_psi_pulls_towards_the_mean_latent():
    generator = Generator(resolution=(16, 16), latent_dim=6, **TINY)
    z = torch.randn(2, 6)
    w = generator.mapping(z)
    torch.testing.assert_close(w.square().mean(1), torch.ones(2))
    assert torch.equal(generator.mapping(z, psi=0.5), w / 2)
    assert torch.equal(generator(z, psi=0.0)[0], generator(z, psi=0.0)[1])


# The discriminator


def test_one_picture_among_equal_ones_is_told_by_the_minibatch_deviation():
    torch.manual_seed(0)
    discriminator = Discriminator(resolution=(16, 16), **TINY)
    image, other = torch.randn(2, 3, 16, 16)
    alone = discriminator(image.expand(4, -1, -1, -1))
    among = discriminator(torch.stack([image, image, image, other]))
    torch.testing.assert_close(alone, alone[:1].expand(4))
    assert not torch.allclose(among[:3], alone[:3])
    apart = Discriminator(resolution=(16, 16), mbstd_group=1, **TINY)
    torch.testing.assert_close(
        apart(torch.stack([image, image, image, other]))[:3], apart(image.expand(3, -1, -1, -1))
    )


@pytest.mark.parametrize("resolution", [(16, 16), (48, 32), (24, 16), (12, 12), (16, 64)])
@pytest.mark.parametrize("channels", [1, 4])
def test_any_size_goes_there_and_back(resolution, channels):
    shared = {"resolution": resolution, "channels": channels, **TINY}
    image = Generator(latent_dim=5, **shared)(torch.randn(4, 5))
    assert image.shape == (4, channels, *resolution)
    assert Discriminator(**shared)(image).shape == (4,)


# Gradients


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_gradients_are_finite_differences(alpha):
    """Of both players' losses, the gradient penalty among them, along random directions."""
    torch.manual_seed(0)
    shared = {"resolution": (12, 12), "grow_from": "base", **TINY}
    generator = Generator(latent_dim=5, **shared).double()
    discriminator = Discriminator(**shared).double()
    for network in (generator, discriminator):
        network.stage.level, network.stage.alpha = 2, alpha
    z, real = torch.randn(4, 5).double(), torch.randn(4, 3, 12, 12).double()
    loss, penalty = Wasserstein(), GradientPenalty()

    def on_discriminator():
        fake = generator(z).detach()
        torch.manual_seed(1)  # the penalty's places
        drawn = penalty(discriminator, real, lambda: fake)
        return loss.discriminator(discriminator(real), discriminator(fake)) + drawn

    def on_generator():
        return loss.generator(discriminator(generator(z)))

    for network, value in ((discriminator, on_discriminator), (generator, on_generator)):
        weights = nn.utils.parameters_to_vector(network.parameters()).detach()
        slopes = torch.autograd.grad(
            value(), [*network.parameters()], allow_unused=True, materialize_grads=True
        )
        slope = torch.cat([part.flatten() for part in slopes])
        for _ in range(2):
            direction, sides = torch.randn_like(weights), []
            for step in (STEP, -STEP):
                nn.utils.vector_to_parameters(weights + step * direction, network.parameters())
                sides.append(value().item())
            found = (sides[0] - sides[1]) / (2 * STEP)
            assert found == pytest.approx((slope @ direction).item(), rel=1e-5)
        nn.utils.vector_to_parameters(weights, network.parameters())


def test_blocks_halve_after_and_double_before_their_convolutions():
    torch.manual_seed(0)
    generator, discriminator = (
        Generator(resolution=(16, 16), **TINY),
        Discriminator(resolution=(16, 16), **TINY),
    )
    x = torch.randn(2, 4, 8, 8)
    up, down = generator.blocks[-1], discriminator.blocks_from_base[-1]
    torch.testing.assert_close(down(x), halve(down.conv1(down.conv0(x))))
    assert up(x).shape == double(x).shape
