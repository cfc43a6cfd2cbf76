"""What the augmentations cost.

    python benchmarks/augment.py                     # bgc at p = 0.3, 64 to 256 px
    python benchmarks/augment.py --preset bgcfnc --sides 64

Prints milliseconds of one core for each image, forward and backward. The sizes take turns within one process,
and the medians are shown, since a shared machine's speed drifts. A batch holds as many pixels at each size.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.augment.diffaugment import DiffAugment


def seconds(augment: nn.Module, images: torch.Tensor) -> tuple[float, float]:
    """CPU seconds of one batch: forward, and backward to the images."""
    before = time.process_time()
    augmented = augment(images)
    between = time.process_time()
    torch.autograd.grad(augmented, images, torch.ones_like(augmented))
    return between - before, time.process_time() - between


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", nargs="+", default=["bgc"])
    parser.add_argument("--p", type=float, default=0.3)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    variants: dict[str, nn.Module] = {
        "ADA " + "+".join(options.preset): ADA(preset=tuple(options.preset), p=options.p),
        "DiffAugment": DiffAugment(),
    }
    batches = {
        side: torch.rand(max(1, 2**18 // side**2), 3, side, side, requires_grad=True)
        for side in options.sides
    }
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(options.rounds + 1):
        for name, augment in variants.items():
            for side, images in batches.items():
                times.setdefault((name, side), []).append(seconds(augment, images))
    for (name, side), found in times.items():
        forward, backward = (
            statistics.median(part) / len(batches[side]) * 1e3 for part in zip(*found[1:], strict=True)
        )
        print(
            f"{name:<12} {side:>4} px  {forward + backward:6.2f} ms/img  "
            f"({forward:.2f} forward, {backward:.2f} backward)"
        )


if __name__ == "__main__":
    main()
