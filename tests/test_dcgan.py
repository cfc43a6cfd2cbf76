"""DCGAN's networks."""

import pytest
import torch
from torch import nn

from kaleidogan.models.dcgan import Discriminator, Generator, stage_widths


@pytest.mark.parametrize("resolution", [(16, 16), (64, 64), (128, 128), (96, 96), (48, 64), (64, 32)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes(resolution, channels):
    generator = Generator(resolution=resolution, channels=channels, latent_dim=5, width=2)
    discriminator = Discriminator(resolution=resolution, channels=channels, width=2)
    image = generator(torch.randn(2, 5))
    assert image.shape == (2, channels, *resolution)
    assert image.abs().max() <= 1
    assert discriminator(image).shape == (2,)


def test_the_published_network_at_64():
    """Published: 4x4 of 512 channels, then 256, 128, 64; kernels of 4."""
    generator, discriminator = Generator(), Discriminator()
    convolutions = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.weight.shape[:2] for layer in convolutions] == [
        (100, 512),
        (512, 256),
        (256, 128),
        (128, 64),
        (64, 3),
    ]
    assert sum(p.numel() for p in generator.parameters()) == 3_576_704
    # 64 more than with the tutorial's first layer, which leaves out the bias.
    assert sum(p.numel() for p in discriminator.parameters()) == 2_765_568 + 64
    norms = [layer for layer in discriminator.layers if isinstance(layer, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [128, 256, 512]


def test_widths_double_up_to_8():
    assert stage_widths(64, 7) == [64, 128, 256, 512, 512, 512, 512]


def test_initialisation_has_the_published_spread():
    torch.manual_seed(0)
    for layer in Generator().layers:
        if isinstance(layer, nn.ConvTranspose2d) and layer.weight.numel() > 10_000:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert layer.bias.abs().max() == 0


def test_without_norms_the_discriminator_treats_pictures_apart():
    discriminator = Discriminator(resolution=(16, 16), width=2, discriminator_norm="none")
    image = torch.randn(4, 3, 16, 16)
    assert torch.allclose(discriminator(image)[:1], discriminator(image[:1]), atol=1e-6)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in discriminator.layers)


def test_psi_pulls_towards_the_mean():
    generator = Generator(resolution=(16, 16), latent_dim=5, width=2).eval()
    z = torch.randn(2, 5)
    assert torch.equal(generator.mapping(z, psi=0.5), z / 2)
    assert torch.equal(generator(z, psi=0.0)[0], generator(z, psi=0.0)[1])
    assert torch.equal(generator.synthesis(z), generator(z))
