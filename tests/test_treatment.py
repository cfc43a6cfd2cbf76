"""What happens to one file on its way into a set, whatever the file."""

import io
import random
import resource
import time

import numpy as np
import pytest
from PIL import Image

from kaleidogan.data.preparing.filters import Limits
from kaleidogan.data.preparing.treatment import Skipped, Treated, Treatment

MEMORY = 256 * 1024
"""KiB."""
EVERYTHING = Treatment(
    (16, 16),
    crop="three",
    frames="remove",
    variants="machineray",
    limits=Limits(4, 0.01, 0.999),
    fingerprints=True,
)


def seeds() -> dict[str, bytes]:
    """A small file of each kind and mode."""
    noise = Image.effect_noise((48, 36), 70)
    coloured = Image.merge("RGB", [noise, noise.rotate(90, expand=False), noise.transpose(0)])
    found = {}
    for kind, modes in {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
        "WEBP": ("RGB", "RGBA"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr", "F", "LAB"),
    }.items():
        for mode in modes:
            buffer = io.BytesIO()
            gray_only = mode in ("I;16", "F")
            (noise if gray_only else coloured).convert(mode).save(buffer, kind)
            found[f"{mode}.{kind}"] = buffer.getvalue()
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file in one of the ways that files are damaged."""
    place = rng.randrange(len(data))
    length = rng.choice((1, 1, 2, 4, 16, 64))
    way = rng.randrange(6)
    if way == 0:
        return data[:place]
    if way == 1:
        return data[:place] + data[place + length :]
    if way == 2:
        return data[:place] + rng.randbytes(length) + data[place:]
    if way == 3:
        return data[:place] + rng.randbytes(length) + data[place + length :]
    if way == 4:  # a size or a count that is too large
        return data[:place] + b"\xff" * length + data[place + length :]
    other = rng.randrange(len(data))
    return data[:place] + data[other : other + 4 * length] + data[place:]


def check(count: int, seed: int) -> None:
    rng = random.Random(seed)
    files = seeds()
    names = sorted(files)
    whole = {type(EVERYTHING(name, files[name])) for name in names}
    assert whole == {Treated, Skipped}  # of floating point there is no picture
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        name = names[number % len(names)]
        data = mutate(files[name], rng)
        began = time.monotonic()
        result = EVERYTHING(name, data)
        assert time.monotonic() - began < 10, (seed, number)
        assert isinstance(result, Treated | Skipped)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY


def test_damaged_pictures():
    check(100, seed=0)


@pytest.mark.slow
def test_2000_damaged_pictures(tmp_path, monkeypatch):
    """Only results and reasons, no hang, no bomb, nothing written."""
    monkeypatch.chdir(tmp_path)
    check(2000, seed=1)
    assert not list(tmp_path.iterdir())


def test_a_treatment_depends_on_nothing_but_the_file():
    data = seeds()["RGB.PNG"]
    one, other = EVERYTHING("a.png", data), EVERYTHING("a.png", data)
    assert isinstance(one, Treated)
    assert one == other
    assert len(one.parts) == 21
    renamed = EVERYTHING("b.png", data)
    assert isinstance(renamed, Treated)
    # Crops are the same; the variants are another file's own.
    assert renamed.parts[0] == one.parts[0]
    assert renamed.parts[1:7] != one.parts[1:7]


def test_a_filter_says_by_how_much():
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(buffer, "PNG")
    result = Treatment((16, 16), limits=Limits(None, None, 0.98))("a.png", buffer.getvalue())
    assert isinstance(result, Skipped)
    assert result.reason == "nearly empty"
    assert result.margin == pytest.approx(-1)
    kept = Treatment((16, 16), limits=Limits(32, None, None))("a.png", buffer.getvalue())
    assert isinstance(kept, Treated)
    assert (kept.margin, kept.filter) == (pytest.approx(1.0), "too_small")
