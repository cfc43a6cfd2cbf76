"""How well the picture filters judge: on real pictures, harmed in known ways.

    python benchmarks/filters.py FOLDER ...                     # every picture below the folders
    python benchmarks/filters.py FOLDER --num 300 --sheets OUT  # a random choice; draw the worst mistakes

Prints what the blur filter refuses by the width of a Gaussian blur, which copies are found and how many
different pictures are taken for copies, how empty the pictures are, and how a watermark on a share of the
pictures is found. Pictures are shrunk to 1024 px first. `docs/filters.md` has the figures.
"""

import argparse
import io
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from kaleidogan.data.preparing import watermark
from kaleidogan.data.preparing.filters import (
    DISTANCE,
    EMPTINESS,
    SHARPNESS,
    SPARSE,
    WORKING_PIXELS,
    Duplicates,
    fingerprint,
    measure,
)
from kaleidogan.data.preparing.pictures import ENDINGS, PictureError, upright
from kaleidogan.data.preparing.sheets import contact_sheet

Pictures = dict[str, Image.Image]
SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
DISTANCES = (0, 2, 4, 6, 8, 10)
ALPHAS = (0.2, 0.4, 0.6)
SHARES = (1.0, 0.2, 0.05)
QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 1.0)


def read(folders: list[Path], num: int | None) -> Pictures:
    """Read a random choice of the pictures, RGB on white."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in ENDINGS)
    random.Random(0).shuffle(paths)
    pictures: Pictures = {}
    for path in paths:
        try:
            picture = upright(path.read_bytes())
        except PictureError:
            continue
        if min(picture.size) >= 32:
            picture.thumbnail((1024, 1024))
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture.convert("RGBA"))
            pictures[str(path)] = white.convert("RGB")
        if len(pictures) == num:
            break
    return pictures


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Encode and decode."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(picture: Image.Image, share: float) -> Image.Image:
    """Take a share of the sides off at each of the four borders."""
    across, down = round(picture.width * share), round(picture.height * share)
    return picture.crop((across, down, picture.width - across, picture.height - down))


def half(picture: Image.Image) -> Image.Image:
    """Scale to half the size."""
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)


def grain(picture: Image.Image, sigma: float) -> Image.Image:
    """Add gray noise."""
    noise = np.random.default_rng(picture.width).normal(0, sigma, (picture.height, picture.width, 1))
    return Image.fromarray((np.asarray(picture) + noise).round().clip(0, 255).astype(np.uint8))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 75": lambda picture: jpeg(picture, 75),
    "JPEG 30": lambda picture: jpeg(picture, 30),
    "half the size": half,
    "128 x 128": lambda picture: picture.resize((128, 128), Image.Resampling.BICUBIC),
    "20 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "30 % darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "contrast + 30 %": lambda picture: ImageEnhance.Contrast(picture).enhance(1.3),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "1 % cropped": lambda picture: crop(picture, 0.01),
    "2 % cropped": lambda picture: crop(picture, 0.02),
    "3 % cropped": lambda picture: crop(picture, 0.03),
    "5 % cropped": lambda picture: crop(picture, 0.05),
    "half, JPEG 50, brighter": lambda picture: ImageEnhance.Brightness(jpeg(half(picture), 50)).enhance(1.1),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def sharpness(pictures: Pictures, sheets: Path | None) -> None:
    """Blur the working copies by known widths, with and without JPEG and grain after it."""
    print(f"\nsharpness: quantiles {QUANTILES}, and what the limit {SHARPNESS} refuses")
    harms: dict[str, Callable[[Image.Image], Image.Image]] = {
        "": lambda picture: picture,
        ", grain of 2": partial(grain, sigma=2),
        ", JPEG 75": lambda picture: jpeg(picture, 75),
        ", grain of 4": partial(grain, sigma=4),
    }
    for name, harm in harms.items():
        for sigma in SIGMAS:
            found = {}
            for path, picture in pictures.items():
                scale = min(1.0, (WORKING_PIXELS / picture.width / picture.height) ** 0.5)
                small = picture.resize(
                    (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
                    Image.Resampling.BOX,
                )
                found[path] = measure(harm(small.filter(ImageFilter.GaussianBlur(sigma)))).sharpness
            values = np.array(list(found.values()))
            quantiles = " ".join(f"{value:.2f}" for value in np.quantile(values, QUANTILES))
            print(f"  blur {sigma:3.1f}{name:<13} {quantiles}   {np.mean(values < SHARPNESS):7.1%}")
            if sheets and not name and sigma in (0.0, 2.0):
                worst = sorted(found, key=lambda path: found[path], reverse=sigma > 0)[:32]
                entries = [(pictures[path], f"{Path(path).name}\n{found[path]:.3f}") for path in worst]
                sheet = contact_sheet(entries, title=f"Worst sharpness after a blur of {sigma:g}")
                sheet.save(sheets / f"sharpness_{sigma:g}.png")


def duplicates(pictures: Pictures, sheets: Path | None) -> None:
    """Find changed copies, and mistake others for them."""
    prints = [fingerprint(picture) for picture in pictures.values()]
    print(f"\ncopies found at distances {DISTANCES}")
    for name, change in COPIES.items():
        changed = [fingerprint(change(picture)) for picture in pictures.values()]
        rates = [
            np.mean(
                [Duplicates(most, [one]).find(other) == 0 for one, other in zip(prints, changed, strict=True)]
            )
            for most in DISTANCES
        ]
        print(f"  {name:<25}", " ".join(f"{rate:7.1%}" for rate in rates))
    bits = np.array(prints, np.uint64)
    allowed = np.bitwise_count(bits) // SPARSE
    pairs, num_pairs = np.zeros(len(DISTANCES)), len(bits) * (len(bits) - 1) / 2
    nearest = []
    for number in range(1, len(bits)):
        apart = np.bitwise_count(bits[:number] ^ bits[number])
        apart = np.where(apart <= allowed[number], apart, 64)
        pairs += [np.count_nonzero(apart <= most) for most in DISTANCES]
        nearest.append((int(apart.min()), int(apart.argmin()), number))
    print(f"  {'different pictures: pairs':<25}", " ".join(f"{rate:7.1e}" for rate in pairs / num_pairs))
    lost = []
    for most in DISTANCES:
        kept = Duplicates(most)
        for one in prints:
            if kept.find(one) is None:
                kept.add(one)
        lost.append(1 - len(kept) / len(prints))
    print(f"  {'different pictures: lost':<25}", " ".join(f"{rate:7.1%}" for rate in lost))
    if sheets:
        names, chosen = list(pictures), sorted(one for one in nearest if one[0] <= DISTANCE)
        chosen = chosen[:: max(1, len(chosen) // 40)]
        entries = [
            (pictures[names[number]], f"{Path(names[number]).name}\n{apart} bits")
            for apart, *pair in chosen
            for number in pair
        ]
        contact_sheet(entries, title="Nearest pairs").save(sheets / "duplicates.png")


def emptiness(pictures: Pictures, sheets: Path | None) -> None:
    """Say how empty pictures are."""
    found = {path: measure(picture).emptiness for path, picture in pictures.items()}
    print("\nemptiness: pictures above", end="")
    for limit in (0.5, 0.8, 0.9, 0.95, EMPTINESS, 0.99, 0.995, 0.999):
        print(f"  {limit:g}: {np.mean(np.array(list(found.values())) > limit):.1%}", end="")
    print()
    if sheets:
        most = sorted(found, key=lambda path: -found[path])
        near = sorted(most, key=lambda path: abs(found[path] - EMPTINESS))[:32]
        near.sort(key=lambda path: -found[path])
        entries = [(pictures[path], f"{Path(path).name}\n{found[path]:.4f}") for path in near]
        contact_sheet(entries, title=f"Around the emptiness of {EMPTINESS}").save(sheets / "emptiness.png")


def stamp(picture: Image.Image, kind: str, alpha: float) -> Image.Image:
    """Blend a white text or a ring in, and save it as JPEG 85."""
    mask = Image.new("L", picture.size)
    draw, (width, height) = ImageDraw.Draw(mask), picture.size
    if kind == "corner":
        draw.text((width - 14, height - 12), "© Stock Photo", 255, ImageFont.load_default(26), "rs")
    elif kind == "small, corner":
        draw.text((width - 8, height - 8), "photo.example", 255, ImageFont.load_default(14), "rs")
    elif kind == "ring, corner":
        draw.ellipse((12, 12, 60, 60), outline=255, width=6)
        draw.text((68, 36), "PIX", 255, ImageFont.load_default(30), "lm")
    elif kind == "centre":
        draw.text((width // 2, height // 2), "SAMPLE", 255, ImageFont.load_default(64), "mm")
    else:
        large = Image.new("L", (600, 450))
        ImageDraw.Draw(large).text((300, 225), "WATERMARK", 255, ImageFont.load_default(80), "mm")
        mask = large.rotate(30, Image.Resampling.BICUBIC).resize(picture.size, Image.Resampling.BICUBIC)
    marked = picture.copy()
    marked.paste(Image.new("RGB", picture.size, "white"), mask=mask.point(lambda value: round(value * alpha)))
    return jpeg(marked, 85)


def watermarks(pictures: Pictures, sheets: Path | None) -> None:
    """Estimate on one half of the pictures, score the other half with the mark and without."""
    every = list(pictures.values())
    seen, held_out = every[: len(every) // 2], every[len(every) // 2 :]
    clean = [jpeg(picture, 85) for picture in seen]
    start = time.perf_counter()
    print(f"\nwatermark: estimated on {len(seen)} pictures; on none of them:", watermark.estimate(clean))
    print(f"  {time.perf_counter() - start:.1f} s; the rates are those of {len(held_out)} other pictures")
    for kind in ("corner", "small, corner", "ring, corner", "centre", "stretched"):
        for share in SHARES:
            for alpha in ALPHAS:
                num = round(share * len(seen))
                marked = [stamp(picture, kind, alpha) for picture in seen[:num]]
                overlay = watermark.estimate(marked + clean[num:])
                about = f"  {kind:<14} on {share:4.0%}, {alpha:.0%} opaque:"
                if overlay is None:
                    print(about, "not found")
                    continue
                with_it = np.array([overlay.score(stamp(picture, kind, alpha)) for picture in held_out])
                without = np.array([overlay.score(picture) for picture in held_out])
                hits, false = np.mean(with_it >= watermark.SUSPECT), np.mean(without >= watermark.SUSPECT)
                print(
                    f"{about} {overlay.view}, {overlay.share:.1%}; hits {hits:.1%}, "
                    f"false alarms {false:.1%} (highest score {without.max():.2f})"
                )
                if sheets and alpha == 0.4:
                    overlay.drawn().save(sheets / f"overlay_{kind.replace(', ', '_')}_{share:g}.png")


def speed(pictures: Pictures) -> None:
    """Time `measure`."""
    several = [picture.resize((512, 512)) for picture in list(pictures.values())[:50]]
    start = time.process_time()
    for picture in several:
        measure(picture)
    print(f"\nmeasure: {(time.process_time() - start) / len(several) * 1e3:.1f} ms for 512 x 512 on one core")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--num", type=int, help="how many pictures; all of them if not given")
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets of the worst mistakes")
    parser.add_argument("--only", choices=("sharpness", "duplicates", "emptiness", "watermarks"), nargs="+")
    options = parser.parse_args()
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    pictures = read(options.folders, options.num)
    print(f"{len(pictures)} pictures")
    for part in (sharpness, duplicates, emptiness, watermarks):
        if not options.only or part.__name__ in options.only:
            part(pictures, options.sheets)
    speed(pictures)


if __name__ == "__main__":
    main()
