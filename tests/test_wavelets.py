"""Haar wavelets: exact inverses that keep energy, and resampling against its three steps."""

import pytest
import torch

from kaleidogan.models import ops, wavelets


def picture(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_synthesis_inverts_analysis_and_energy_is_kept(channels):
    x = picture(2, channels, 8, 12)
    bands = wavelets.analyse(x)
    assert bands.shape == (2, 4 * channels, 4, 6)
    torch.testing.assert_close(wavelets.synthesise(bands), x)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())


def test_the_sub_bands_of_one_block():
    a, b, c, d = 1.0, 2.0, 5.0, 11.0
    bands = wavelets.analyse(torch.tensor([[[[a, c], [b, d]]]]))
    wanted = [a + b + c + d, a + c - b - d, a - c + b - d, a - c - b + d]
    torch.testing.assert_close(bands.flatten(), torch.tensor(wanted) / 2)


@pytest.mark.parametrize("name", ["upsample", "downsample"])
def test_resampling_is_synthesis_filter_and_analysis(name):
    bands = picture(2, 12, 6, 8)
    steps = wavelets.analyse(getattr(ops, name)(wavelets.synthesise(bands)))
    torch.testing.assert_close(getattr(wavelets, name)(bands), steps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["analyse", "synthesise", "upsample", "downsample"])
def test_each_can_be_differentiated_twice(name):
    x = picture(1, 4, 4, 4).requires_grad_()
    torch.autograd.gradcheck(getattr(wavelets, name), (x,))
    torch.autograd.gradgradcheck(getattr(wavelets, name), (x,))
