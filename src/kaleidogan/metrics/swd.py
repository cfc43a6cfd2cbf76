"""Sliced Wasserstein distance over a Laplacian pyramid: which sizes of structure are right, and which not."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

SMALLEST = 16
"""The pyramid ends before its shorter side would fall below this, in pixels."""
PATCH = 7
CHUNK = 32
"""Pictures whose pyramid is held at once."""
PROJECTIONS = 2**20
"""Numbers that are sorted at once, of as many directions as that is."""
LEAST_STD = 1e-4
"""Below this a channel counts as constant (an opaque alpha): its rounding errors are no structure."""


def low_pass(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Blur by [1, 4, 6, 4, 1] / 16 along both sides, about a Gaussian of sigma 1; the border is mirrored."""
    pictures = pad(pictures, (2, 2, 2, 2), mode="reflect")
    for side in (2, 3):
        # Shifted sums: convolutions of a single channel take ten times as long on a processor (measured).
        length = pictures.shape[side] - 4
        taps = [pictures.narrow(side, start, length) for start in range(5)]
        pictures = (taps[0] + taps[4]).add_(taps[1] + taps[3], alpha=4).add_(taps[2], alpha=6).mul_(1 / 16)
    return pictures


def shrink(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Halve both sides, of an odd one rounding up."""
    return low_pass(pictures)[:, :, ::2, ::2]


def enlarge(pictures: Float[Tensor, "n c h2 w2"], height: int, width: int) -> Float[Tensor, "n c h w"]:
    """Double both sides, to the size that was halved."""
    sparse = pictures.new_zeros(*pictures.shape[:2], height, width)
    sparse[:, :, ::2, ::2] = pictures
    return low_pass(sparse).mul_(4)


def laplacian_pyramid(pictures: Float[Tensor, "n c h w"]) -> list[Tensor]:
    """What each halving loses, from the finest on, and what is left at the end.

    From Burt and Adelson 1983, "The Laplacian pyramid as a compact image code".
    """
    levels = [pictures]
    while (min(levels[-1].shape[2:]) + 1) // 2 >= SMALLEST:
        levels.append(shrink(levels[-1]))
    residuals = [fine - enlarge(coarse, fine.shape[2], fine.shape[3]) for fine, coarse in pairwise(levels)]
    return [*residuals, levels[-1]]


def cut_patches(
    pictures: Float[Tensor, "n c h w"], places: Int[Tensor, "2 n p"], side: int
) -> Float[Tensor, "n p side side c"]:
    """Cut square patches from each picture, given their upper left corners (top, left)."""
    offsets = torch.arange(side)
    rows, columns = places[..., None] + offsets
    numbers = torch.arange(len(pictures))[:, None, None, None]
    found: Tensor = pictures.movedim(1, -1)[numbers, rows[..., :, None], columns[..., None, :]]
    return found


def normalise(patches: Float[Tensor, "n p s s c"]) -> Float[Tensor, "m d"]:
    """Bring each channel of a set to mean 0 and standard deviation 1, and each patch to a row."""
    std, mean = torch.std_mean(patches, dim=(0, 1, 2, 3), correction=0)
    return ((patches - mean) / std.clamp_min(LEAST_STD)).flatten(2).flatten(0, 1)


def project(rows: Float[Tensor, "m d"], directions: Float[Tensor, "k d"]) -> Iterator[Float[Tensor, "k2 m"]]:
    """Project rows on directions, a few at a time, and sort the projections on each."""
    for some in torch.split(directions, max(1, PROJECTIONS // len(rows))):
        found = torch.mm(some, rows.T).cpu()
        # NumPy sorts floats ten times as fast as PyTorch does on a processor (measured).
        found.numpy().sort(axis=-1)
        yield found


def distance(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """Mean Wasserstein-1 distance of sorted projections, times 1000."""
    means = [(a - b).abs_().mean(1) for a, b in zip(one, other, strict=True)]
    return 1000 * torch.cat(means).mean().item()


class SlicedWasserstein:
    """The distance of fakes from these reals, a number for each level of their Laplacian pyramids.

    From Karras et al. 2018, "Progressive growing of GANs for improved quality, stability, and variation":
    patches of 7x7 pixels, each set's channels normalised by its own mean and deviation, projected on random
    directions; 1000 times the mean distance of the sorted projections. Being normalised, it does not see a
    shift of all colours. A number depends on how many pictures and patches there are: compare equal settings.

    It draws from a generator of its own; patches and directions are the same in each call.

    Args:
        reals: at any range of values.
        seed: of the patches' places and the directions.
        patches: of each picture and level; the paper takes 128.
        directions: to project on.
    """

    def __init__(
        self,
        reals: Float[Tensor, "n c h w"],
        *,
        seed: int = 0,
        patches: int = 64,
        directions: int = 512,
    ) -> None:
        self._seed = seed
        self._patches = patches
        self._directions = directions
        self._shape = tuple(reals.shape)
        self._reals = {side: list(found) for side, found in self._projections(reals)}

    def __call__(self, fakes: Float[Tensor, "n c h w"]) -> dict[int, float]:
        """Measure as many fakes as there are reals.

        Returns:
            The distance by the level's shorter side, from the finest level on.

        Raises:
            ValueError: if there are more or fewer fakes than reals, or they are of another shape.
        """
        if (shape := tuple(fakes.shape)) != self._shape:
            raise ValueError(f"fakes of shape {shape} against reals of {self._shape}: both should be alike")
        return {side: distance(found, self._reals[side]) for side, found in self._projections(fakes)}

    def _projections(self, pictures: Tensor) -> Iterator[tuple[int, Iterator[Tensor]]]:
        """Each level's shorter side, and the sorted projections of its patches."""
        random = torch.Generator().manual_seed(self._seed)
        sizes = [level.shape[2:] for level in laplacian_pyramid(pictures[:1])]
        places = [self._places(random, len(pictures), *size) for size in sizes]
        found: list[list[Tensor]] = [[] for _ in sizes]
        for start in range(0, len(pictures), CHUNK):
            chunk = slice(start, start + CHUNK)
            for number, level in enumerate(laplacian_pyramid(pictures[chunk])):
                patch = min(PATCH, *sizes[number])
                found[number].append(cut_patches(level, places[number][:, chunk], patch))
        for size, patches in zip(sizes, found, strict=True):
            rows = normalise(torch.cat(patches))
            directions = torch.randn(self._directions, rows.shape[1], generator=random)
            directions /= directions.norm(dim=1, keepdim=True)
            yield min(size), project(rows, directions.to(rows.device))

    def _places(self, random: torch.Generator, count: int, height: int, width: int) -> Tensor:
        patch = min(PATCH, height, width)
        ends = (height - patch + 1, width - patch + 1)
        return torch.stack([torch.randint(end, (count, self._patches), generator=random) for end in ends])
