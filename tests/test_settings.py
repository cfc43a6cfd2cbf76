"""The kinds of value a setting may have."""

import pytest

from kaleidogan.settings import nearest_side, parse_seeds, size_of, split_resolution


@pytest.mark.parametrize(
    ("size", "base", "doublings"),
    [
        ((64, 64), (4, 4), 4),
        ((512, 512), (4, 4), 7),
        ((16, 16), (4, 4), 2),
        ((96, 96), (3, 3), 5),
        ((48, 64), (3, 4), 4),
        ((384, 512), (3, 4), 7),
        ((160, 160), (5, 5), 5),
        ((44, 64), (11, 16), 2),
    ],
)
def test_a_size_is_a_base_and_doublings(size, base, doublings):
    assert split_resolution(*size) == (base, doublings)
    assert tuple(side << doublings for side in base) == size


@pytest.mark.parametrize(
    ("size", "near"), [((65, 65), "64"), ((70, 70), "72"), ((64, 65), "64"), ((8, 8), "12")]
)
def test_another_size_is_refused_with_the_nearest(size, near):
    with pytest.raises(ValueError, match=rf"nearest that is: {near}$"):
        split_resolution(*size)


def test_the_nearest_side_of_a_valid_one_is_itself():
    assert [nearest_side(side) for side in (16, 64, 96, 1024)] == [16, 64, 96, 1024]


def test_sizes_and_seeds():
    assert size_of(64) == (64, 64)
    assert size_of((48, 64)) == (48, 64)
    assert parse_seeds("0-2,7, 9-9") == [0, 1, 2, 7, 9]


@pytest.mark.parametrize("text", ["", "x", "3-", "5-2", "-1", "1.5", "4294967296"])
def test_seeds_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r"neither a number nor a range|is above"):
        parse_seeds(text)
