"""The average."""

import copy

import pytest
import torch
from torch import nn

from kaleidogan.training import ema


def test_after_a_half_life_of_images_it_is_half_way():
    average, live = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        average.weight.zero_()
        live.weight.fill_(1)
    for _ in range(10):
        ema.update(average, live, ema.decay(32, 320, images_seen=10**9))
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.5))


def test_the_batch_size_does_not_matter():
    whole, half = (ema.decay(images, 1000, images_seen=10**9) for images in (64, 32))
    assert whole == pytest.approx(half**2)


def test_it_begins_with_a_short_memory():
    assert ema.decay(32, 10_000, images_seen=640, rampup=0.05) == pytest.approx(0.5)
    assert ema.decay(32, 10_000, images_seen=0, rampup=0.05) == 0


def test_batch_norms_statistics_are_averaged_like_the_weights_and_other_buffers_copied():
    average, live = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    live.running_mean.fill_(8)
    live.num_batches_tracked.fill_(3)
    ema.update(average, live, 0.75)
    assert average.running_mean.tolist() == [2, 2]
    assert average.num_batches_tracked == 3


def test_the_average_of_a_network_that_stands_still_is_that_network():
    torch.manual_seed(0)
    live = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = copy.deepcopy(live)
    live(torch.randn(8, 3))
    for _ in range(200):
        ema.update(average, live, 0.8)
    image = torch.randn(8, 3)
    torch.testing.assert_close(average.eval()(image), live.eval()(image))
