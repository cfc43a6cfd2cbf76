"""Which sample stands at each position."""

from itertools import chain

import numpy as np
import pytest

from kaleidogan.data.order import Batches, Order


def test_a_pass_shows_each_sample_once():
    order = Order([5, 3, 7], seed=1)
    for number in range(3):
        assert sorted(order.items(number * 15, 15)) == list(range(15))


def test_with_mirror_a_pass_shows_each_sample_both_ways():
    order = Order([5, 3], seed=1, mirror=True)
    assert len(order) == 16
    assert sorted(order.items(0, 16)) == list(range(16))


def test_passes_and_seeds_differ_and_nothing_else_does():
    order = Order([50], seed=1)
    assert not np.array_equal(order.items(0, 50), order.items(50, 50))
    assert not np.array_equal(order.items(0, 50), Order([50], seed=2).items(0, 50))
    assert np.array_equal(order.items(0, 50), Order([50], seed=1).items(0, 50))


def test_any_part_is_the_same_as_in_the_whole():
    whole = Order([7, 9, 4], seed=3).items(0, 200)
    for start in (0, 1, 19, 20, 21, 100):
        assert np.array_equal(Order([7, 9, 4], seed=3).items(start, 50), whole[start : start + 50])


def test_samples_are_shuffled_within_a_window_of_shards():
    order = Order([10] * 12, seed=0, window=3)
    shards = order.items(0, 120) // 10
    for window in shards.reshape(4, 30):
        assert len(set(window)) == 3
        assert not np.array_equal(window, np.sort(window))


def test_the_order_is_what_it_always_was():
    """A changed order would make every checkpoint resume on other samples."""
    assert Order([4, 4], seed=0).items(0, 8).tolist() == [6, 7, 1, 5, 3, 0, 4, 2]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_global_batch_does_not_depend_on_the_number_of_ranks(world_size):
    ranks = [
        list(
            Batches(
                Order([30], seed=0),
                batch_sizes=[8],
                position=lambda: 16,
                tick=40,
                stop=1000,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]
    joined = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert joined == [Order([30], seed=0).items(start, 8).tolist() for start in (16, 24, 32)]


def test_ticks_end_at_multiples_and_training_at_its_stop():
    seen = [0]
    batches = Batches(Order([30], seed=0), batch_sizes=[8], position=lambda: seen[0], tick=20, stop=50)
    lengths = []
    while seen[0] < 50:
        count = len(list(batches))
        lengths.append(count)
        assert count <= len(batches)
        seen[0] += 8 * count
    assert lengths == [3, 2, 2]  # up to 24, 40 and 56 images


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="batch_size 9 cannot be shared equally by 2"):
        Batches(Order([30], seed=0), batch_sizes=[9], position=lambda: 0, tick=9, stop=9, world_size=2)


def test_each_level_has_its_batch_size_from_a_tick_on_and_misses_no_item():
    seen, level, order = [0], [0], Order([30], seed=0)
    batches = Batches(
        order,
        batch_sizes=[8, 4, 2],
        level=lambda: level[0],
        position=lambda: seen[0],
        tick=16,
        stop=60,
    )
    sizes, items = [], []
    for level[0] in (0, 1, 2, 2):
        tick = list(batches)
        assert len(tick) <= len(batches) == 8
        sizes.append([len(batch) for batch in tick])
        items += chain(*tick)
        seen[0] = len(items)
    assert sizes == [[8] * 2, [4] * 4, [2] * 8, [2] * 6]
    assert items == order.items(0, 60).tolist()


def test_a_level_is_asked_for_when_its_tick_begins():
    level = [0]
    batches = Batches(
        Order([30], seed=0), batch_sizes=[8, 4], level=lambda: level[0], position=int, tick=16, stop=99
    )
    tick = iter(batches)
    assert len(next(tick)) == 8
    level[0] = 1
    assert [len(batch) for batch in tick] == [8]
    assert [len(batch) for batch in batches] == [4] * 4


def test_a_batch_of_any_level_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="batch_size 6 cannot be shared equally by 4"):
        Batches(Order([30], seed=0), batch_sizes=[8, 6], position=int, tick=9, stop=9, world_size=4)


def test_weights_show_a_shard_more_often_in_a_pass_of_the_same_length():
    order = Order([10, 10, 20], seed=0, weights=[3.0, 1.0, 0.0])
    assert len(order) == 40
    per_pass = [np.bincount(order.items(40 * number, 40), minlength=40) for number in range(200)]
    for counts in per_pass:
        assert counts.sum() == 40
        # Forty places for forty shares.
        assert set(counts[:10]) <= {3}
        assert set(counts[10:20]) <= {1}
        assert not counts[20:].any()
    uneven = Order([10, 10], seed=0, weights=[1.0, 2.0])
    shown = np.mean([np.bincount(uneven.items(20 * n, 20), minlength=20) for n in range(400)], axis=0)
    assert shown[:10] == pytest.approx(2 / 3, abs=0.1)
    assert shown[10:] == pytest.approx(4 / 3, abs=0.1)


def test_equal_weights_and_mirrored_ones():
    plain = Order([5, 3], seed=1, mirror=True, weights=[2.0, 2.0])
    assert sorted(plain.items(0, 16)) == list(range(16))
    doubled = Order([5, 5], seed=1, mirror=True, weights=[1.0, 0.0])
    assert np.bincount(doubled.items(0, 20), minlength=20).tolist() == [2] * 5 + [0] * 5 + [2] * 5 + [0] * 5


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="are not numbers from 0 up, one above it"):
        Order([2, 2], seed=0, weights=weights)


@pytest.mark.parametrize("mirror", [False, True])
def test_windows_are_the_shards_that_come(mirror):
    order = Order([4] * 10, seed=2, window=3, mirror=mirror)
    for start in (0, 3, 13, 41, 79, 200):
        windows = order.windows(start)
        position, end = start, start + 2 * len(order)
        while position < end:
            window = next(windows)
            length = 4 * len(window) * (2 if mirror else 1)
            offset = position % len(order) % (12 * (2 if mirror else 1))
            items = order.items(position, length - offset)
            assert set(items % 40 // 4) <= set(window)
            position += length - offset
