"""How fast a data set is read, against the bare decoder and against memory; what a large one costs.

    python benchmarks/data.py                 # rates, on pictures drawn here
    python benchmarks/data.py --shards 1000   # memory and start of a set of so many shards

Rates are of one core, without data workers: pictures a second of process time, the best of several rounds,
the ways taking turns.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kaleidogan.data.decoded import open_decoded
from kaleidogan.data.loading import Pictures, load_batches
from kaleidogan.data.order import Batches, Order
from kaleidogan.data.procedural import Gallery
from kaleidogan.data.reader import Reader, decode
from kaleidogan.data.shards import Description, Index, Sample, encode, load_index
from kaleidogan.data.writing import write

BATCH = 64


def picture_set(folder: Path, side: int, picture_format: str, count: int, source: Path | None) -> Index:
    """Write a set of drawn pictures, or of those of a prepared set."""
    if source is not None:
        reader = Reader(load_index(source))
        pixels = [reader.read(number % len(reader.index)) for number in range(count)]
    else:
        gallery = Gallery(num_images=count)
        pixels = [gallery.draw(number, (side, side), 3).pixels for number in range(count)]
    samples = (Sample(encode(one, picture_format), one.shape[:2]) for one in pixels)
    about = Description(resolution=pixels[0].shape[:2], picture_format=picture_format)
    return write(folder, samples, about, 128)


def rate(work: Callable[[], int]) -> float:
    """Pictures a second of process time."""
    began = time.process_time()
    count = work()
    return count / (time.process_time() - began)


def batches(index: Index, count: int) -> Batches:
    """One tick of so many pictures."""
    order = Order([shard.samples for shard in index.shards], seed=0)
    return Batches(order, batch_sizes=[BATCH], position=int, tick=count, stop=count)


def compare(index: Index, cache: Path, rounds: int) -> None:
    """Print the rates of the decoder alone, the loader, and the loader of decoded pictures."""
    count = len(index) // BATCH * BATCH
    passes = 8
    shards = [(Path(index.place) / shard.name).read_bytes() for shard in index.shards]
    encoded = [
        shards[int(row["shard"])][int(row["offset"]) : int(row["offset"]) + int(row["size"])]
        for row in index.rows[:count]
    ]
    decoded = open_decoded(index, cache, skip=False, num_workers=1)

    def bare() -> int:
        for data in encoded * passes:
            decode(data, index.channels, index.resolution)
        return passes * count

    def loader(pictures: Pictures) -> int:
        return sum(len(batch["image"]) for batch in load_batches(pictures, batches(index, passes * count), 0))

    def alone() -> int:
        buffer = np.empty((BATCH, *index.resolution, 3), np.uint8)
        for place, data in enumerate(encoded * passes):
            buffer[place % BATCH] = decode(data, index.channels, index.resolution)
        return passes * count

    ways = {
        "decoder alone": bare,
        "into one buffer": alone,
        "loader": lambda: loader(Pictures(index, Reader(index))),
        "decoded": lambda: loader(Pictures(index, decoded)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(rate(way))
    best = {name: max(rates) for name, rates in found.items()}
    shares = [a / b for a, b in zip(found["loader"], found["decoder alone"], strict=True)]
    print(
        f"{index.picture_format} {index.resolution[0]} px: "
        + ", ".join(f"{name} {value:,.0f}" for name, value in best.items())
        + f" pictures/s; loader {best['loader'] / best['decoder alone']:.1%} of the decoder"
        f" (median of pairs {float(np.median(shares)):.1%}), decoded {best['decoded'] / best['loader']:.1f}x"
    )


def memory() -> float:
    """Most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large(folder: Path, num_shards: int, side: int) -> None:
    """Print what a set of many shards costs: they are one file under many names."""
    index = picture_set(folder / "one", side, "png", 1024, None)
    shard = index.shards[0].model_copy(update={"samples": 128})
    rows = np.array(index.rows[:128])
    whole = folder / "many"
    whole.mkdir()
    names = [f"{number:06d}.tar" for number in range(num_shards)]
    for name in names:
        (whole / name).hardlink_to(Path(index.place) / shard.name)
    every = np.tile(rows, num_shards)
    every["shard"] = np.repeat(np.arange(num_shards), len(rows))
    np.save(whole / "samples.npy", every)
    about = json.loads((Path(index.place) / "index.json").read_text())
    about |= {"shards": [{**shard.model_dump(), "name": name} for name in names]}
    about = {key: value for key, value in about.items() if key not in ("samples", "aspects")}
    (whole / "index.json").write_text(json.dumps(about))
    began, before = time.perf_counter(), memory()
    many = load_index(whole)
    opened = time.perf_counter()
    order = Order([one.samples for one in many.shards], seed=0)
    order.items(0, BATCH)
    started = time.perf_counter()
    order = Order([one.samples for one in many.shards], seed=0)
    order.items(10**12, BATCH)
    resumed = time.perf_counter()
    print(
        f"{num_shards} shards, {len(many):,} samples: opened in {opened - began:.2f} s, first batch's items "
        f"{started - opened:.3f} s, of image 10^12 {resumed - started:.3f} s, +{memory() - before:.0f} MB"
    )
    pictures = Pictures(many, Reader(many))
    for number, batch in enumerate(load_batches(pictures, batches(many, len(many)), 0)):
        if number == 0:
            print(f"after a batch: +{memory() - before:.0f} MB")
        del batch
    print(f"after a pass: +{memory() - before:.0f} MB, {len(pictures._reader._files)} files open")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, help="a set of so many shards, instead of rates")
    parser.add_argument("--source", type=Path, help="a prepared set to take the pictures from")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if arguments.shards:
            large(Path(name), arguments.shards, 16)
            return
        for side in (64, 256):
            for picture_format in ("png", "jpg"):
                folder = Path(name) / f"{side}{picture_format}"
                index = picture_set(folder, side, picture_format, 512, arguments.source)
                compare(index, Path(name), arguments.rounds)
            if arguments.source:
                return


if __name__ == "__main__":
    main()
