"""Texture: spectra and noise whose values are known."""

from math import log10, pi, sqrt

import pytest
import torch

from kaleidogan.metrics.swd import low_pass
from kaleidogan.metrics.texture import GRAY_LEVEL, FlatNoise, radial_spectrum, spectrum_gap

LEFT = sqrt(1 - 2 * (6 / 16) ** 2 + (70 / 256) ** 2)
"""What the high pass leaves of white noise: the kernel's centre is 6/16, its squares' sum 70/256, twice."""


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def wave(height: int, width: int, down: float, across: float) -> torch.Tensor:
    """A wave of so many cycles in the picture's height and width."""
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    return torch.sin(2 * pi * (down * rows + across * columns)).expand(1, 3, height, width)


# Spectra


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (12, 12)])
def test_white_noise_is_flat_at_its_variance(size):
    found = radial_spectrum(0.1 * noise(400, 1, *size))
    assert found.shape == (min(size) // 2,)
    # At one cycle the mean that was taken away is missed, under the window.
    torch.testing.assert_close(found[1:], torch.full_like(found[1:], -20), atol=0.5, rtol=0)


@pytest.mark.parametrize(("down", "across"), [(4, 0), (0, 13), (8, 0), (12, 16), (32, 0), (-6, 8)])
def test_a_wave_peaks_at_its_frequency(down, across):
    # At Nyquist a sine is 0 at every pixel, unless it is moved along.
    wanted = wave(64, 64, down, across) if down < 32 else wave(64, 64, down, 0.5)
    assert radial_spectrum(wanted).argmax() + 1 == round(sqrt(down**2 + across**2))


@pytest.mark.parametrize(("down", "across"), [(0, 20), (5, 0), (5, 20)])
def test_frequencies_of_a_wide_picture_are_those_of_its_shorter_side(down, across):
    peak = radial_spectrum(wave(32, 64, down, across)).argmax() + 1
    assert peak == round(sqrt(down**2 + (across / 2) ** 2))


def test_twice_the_contrast_is_six_decibels():
    some = noise(3, 3, 32, 32)
    torch.testing.assert_close(radial_spectrum(2 * some), radial_spectrum(some) + 20 * log10(2))


def test_mean_and_alpha_do_not_count_and_nothing_is_minus_120():
    colours = noise(3, 3, 32, 32)
    with_alpha = torch.cat([colours + 0.5, noise(3, 1, 32, 32)], 1)
    torch.testing.assert_close(radial_spectrum(with_alpha), radial_spectrum(colours), atol=1e-3, rtol=0)
    assert radial_spectrum(torch.full((2, 1, 16, 16), 0.5)).tolist() == [-120.0] * 8


def test_a_gap_is_a_distance_overall_and_an_excess_at_the_top():
    reals = torch.tensor([0.0, -10, -20, -30, -40, -50, -60, -70])
    fakes = reals + torch.tensor([1.0, -1, 1, -1, 0, 0, 2, -6])
    assert spectrum_gap(fakes, reals) == (pytest.approx(12 / 8), pytest.approx(-2))
    assert spectrum_gap(fakes[:2], reals[:2]) == (pytest.approx(1), pytest.approx(-1))


def test_a_blur_lacks_the_highest_frequencies():
    reals = noise(20, 3, 32, 32)
    gap, high = spectrum_gap(radial_spectrum(low_pass(reals)), radial_spectrum(reals))
    assert high < -20
    assert 0 < gap < -high


# Noise in flat areas


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_on_plain_paper_is_measured_in_gray_levels(sigma, channels):
    paper = torch.linspace(-0.9, 0.9, 40).view(-1, 1, 1, 1).expand(40, channels, 32, 32)
    measure = FlatNoise(paper)
    assert measure(paper) == pytest.approx(0, abs=1e-4)
    found = measure(paper + sigma * GRAY_LEVEL * noise(40, channels, 32, 32))
    assert found == pytest.approx(sigma * LEFT, rel=0.03)


def test_only_flat_patches_count():
    paper = torch.zeros(10, 3, 64, 64)
    measure = FlatNoise(paper)
    both = paper + GRAY_LEVEL * noise(10, 3, 64, 64)
    both[..., 32:] += wave(64, 32, 4, 0)
    assert measure(both) == pytest.approx(LEFT, rel=0.1)
    assert measure(both[..., 32:]) != measure(both[..., 32:])  # NaN: nothing is flat


def test_the_border_does_not_count_and_fine_texture_is_no_structure():
    paper = torch.zeros(10, 3, 64, 64)
    measure = FlatNoise(paper)
    framed = paper.clone()
    framed[..., 0] = 1
    assert measure(framed) == pytest.approx(0, abs=1e-4)
    hatched = paper + 10 * GRAY_LEVEL * (-1) ** (torch.arange(64) + torch.arange(64)[:, None])
    assert measure(hatched) == pytest.approx(10, rel=0.05)


def slopes(*rises: float) -> torch.Tensor:
    """Pictures of 8x8 that rise from left to right by so much a pixel."""
    return torch.tensor(rises).view(-1, 1, 1, 1) * torch.arange(8).expand(1, 8, 8)


def test_how_flat_is_flat_is_learnt_from_the_flattest_quarter_of_the_reals():
    measure = FlatNoise(slopes(0.1, 0.2, 0.3, 0.4))
    assert measure(slopes(0.09)) > 0
    assert measure(slopes(0.1)) > 0
    assert measure(slopes(0.11)) != measure(slopes(0.11))


def test_alpha_does_not_count_and_sizes_that_patches_do_not_fill_are_measured():
    for size in ((3, 3), (12, 20)):
        paper = torch.zeros(200, 4, *size)
        paper[:, 3] = noise(200, *size)
        assert FlatNoise(paper)(paper) == 0
