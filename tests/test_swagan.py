"""SWAGAN: any size, both variants, both ways up, and the numbers that it chooses. Golden: test_rosinality."""

import pytest
import torch

from kaleidogan.models import wavelets
from kaleidogan.models.swagan import Discriminator, Generator, NeuralDownsampling, NeuralUpsampling
from kaleidogan.training.modules import SWAGAN, StyleGAN2ADA

SMALL = {"channel_base": 64, "channel_max": 8}


def make_generator(**options) -> Generator:
    torch.manual_seed(0)
    return Generator(latent_dim=8, w_dim=8, mapping_layers=2, **SMALL, **options)


def make_discriminator(**options) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(**SMALL, **options)


@pytest.mark.parametrize("resolution", [(48, 32), (24, 16), (12, 12), (16, 64)])
@pytest.mark.parametrize("variant", ["port", "paper"])
@pytest.mark.parametrize("upsampling", ["bilinear", "neural"])
def test_any_size_variant_and_upsampling_go_there_and_back(resolution, variant, upsampling):
    shared = {"resolution": resolution, "channels": 4, "variant": variant, "upsampling": upsampling}
    generator = make_generator(**shared)
    image = generator(torch.randn(4, 8))
    assert image.shape == (4, *generator.image_shape) == (4, 4, *resolution)
    if variant == "paper" and resolution[0] == 12:
        with pytest.raises(ValueError, match="3x3, which has to be even"):
            make_discriminator(**shared)
        return
    discriminator = make_discriminator(**shared)
    loss = discriminator(image).sum()
    loss.backward()
    for network in (generator, discriminator):
        idle = [name for name, p in network.named_parameters() if p.grad is None]
        assert not idle, "each parameter takes part"


def test_it_has_two_styles_fewer_than_stylegan2():
    assert make_generator(resolution=(64, 64)).num_ws == 2 * 6 - 2 - 2


def test_both_networks_take_conditions():
    generator, discriminator = make_generator(c_dim=3), make_discriminator(c_dim=3)
    c = torch.eye(3)
    image = generator.eval()(torch.randn(1, 8).expand(3, -1), c)
    assert not torch.equal(image[0], image[1])
    logits = discriminator(image[:1].expand(3, -1, -1, -1), c)
    assert len(logits.unique()) == 3
    with pytest.raises(ValueError, match="conditions of 3 numbers; found: none"):
        generator(torch.randn(1, 8))


def test_neural_resampling_doubles_and_halves_the_picture_of_the_bands():
    bands = wavelets.analyse(torch.randn(2, 3, 16, 16))
    assert NeuralUpsampling(3)(bands).shape == (2, 12, 16, 16)
    assert NeuralDownsampling(3)(bands).shape == (2, 12, 4, 4)


def test_neural_resampling_can_learn_to_enlarge_by_repeating():
    """With only LL's weights set to 2, each pixel becomes a block of four of its own."""
    up = NeuralUpsampling(1)
    with torch.no_grad():
        up.conv.weight.copy_(torch.tensor([2.0, 0, 0, 0]).reshape(4, 1, 1, 1))
    picture = torch.randn(1, 1, 8, 8)
    larger = wavelets.synthesise(up(wavelets.analyse(picture)))
    torch.testing.assert_close(larger, picture.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("variant", ["port", "paper"])
@pytest.mark.parametrize("upsampling", ["bilinear", "neural"])
def test_gradients_equal_finite_differences(variant, upsampling):
    """Of the logit of a made picture, in double precision, along a random direction of all parameters."""
    options = {"resolution": (16, 16), "variant": variant, "upsampling": upsampling}
    networks = torch.nn.ModuleList([make_generator(**options), make_discriminator(**options)]).double()
    w = torch.randn(2, 8, dtype=torch.float64)

    def logit():
        return networks[1](networks[0].synthesis(w, noise="const")).sum()

    learnt = [p for name, p in networks.named_parameters() if ".map." not in name]
    gradients = torch.autograd.grad(logit(), learnt)
    directions = [torch.randn_like(p) for p in learnt]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    ends = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for p, d in zip(learnt, directions, strict=True):
                p.add_(d, alpha=step)
            ends.append(logit())
    assert ((ends[0] - ends[1]) / 2e-6).item() == pytest.approx(slope.item(), rel=1e-4)


def test_gamma_is_a_quarter_of_stylegan2s():
    wavelet = SWAGAN(resolution=64, **SMALL, latent_dim=8, w_dim=8)
    plain = StyleGAN2ADA(resolution=64, **SMALL, latent_dim=8, w_dim=8)
    assert wavelet.hparams.r1_gamma == pytest.approx(plain.hparams.r1_gamma / 4)
    assert wavelet.hparams.batch_size == plain.hparams.batch_size == 32
