"""One file of a picture, to pixels."""

import io
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from kaleidogan.data.preparing.fitting import centre_box, fit
from kaleidogan.data.preparing.pictures import MAX_BYTES, PictureError, open_picture, upright, upright_size

COLOUR, DEPTH_16 = 2, 16


def read_picture(data, resolution, channels):
    """Decode a file and make it fit."""
    (fitted,) = fit(open_picture(data, channels), resolution)
    return fitted


def save(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def row(mode, *values, kind="PNG", **options):
    """Encode a picture of one row."""
    picture = Image.new(mode, (len(values), 1))
    picture.putdata(values)
    return save(picture, kind, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width, height, depth, colour, rows, transparent=b""):
    """Write a PNG by the letter of its format, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    extra = chunk(b"tRNS", transparent) if transparent else b""
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows, 9)),
            chunk(b"IEND", b""),
        ]
    )


def raw_tiff(width, tags, data):
    """Write an uncompressed TIFF of one row, little-endian, with tags {number: short}."""
    entries = {256: width, 257: 1, 259: 1, 277: 1, 278: 1, 279: len(data)} | tags
    entries[273] = 8 + 2 + 12 * (len(entries) + 1) + 4
    directory = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + data


def paletted(**options):
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 0, 5, 6, 7])
    picture.putdata([0, 1, 2])
    return save(picture, **options)


def animated(kind):
    first, second = (Image.new("RGB", (3, 1), colour) for colour in ("red", "blue"))
    return save(
        first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {})
    )


RED, GRAY = (255, 0, 0), (128, 128, 128)
SIXTEEN = struct.pack("<4H", 0, 257 * 100, 65535, 128)
MODES = {
    "1": (row("1", 0, 255), [(0,) * 3, (255,) * 3]),
    "1 TIFF": (row("1", 0, 255, kind="TIFF"), [(0,) * 3, (255,) * 3]),
    "1 with a transparent value": (raw_png(2, 1, 1, 0, b"\0\x40", b"\0\0"), [(255,) * 3] * 2),
    "L": (row("L", 0, 77, 255), [(0,) * 3, (77,) * 3, (255,) * 3]),
    "L with a transparent value": (row("L", 0, 77, transparency=77), [(0,) * 3, (255,) * 3]),
    "4-bit L": (raw_png(2, 1, 4, 0, b"\0\x3f"), [(51,) * 3, (255,) * 3]),
    "4-bit L with a transparent value": (raw_png(2, 1, 4, 0, b"\0\x34", b"\0\x03"), [(255,) * 3, (68,) * 3]),
    "LA": (row("LA", (0, 255), (0, 0), (100, 51)), [(0,) * 3, (255,) * 3, (224,) * 3]),
    "LA TIFF": (row("LA", (0, 255), (0, 0), kind="TIFF"), [(0,) * 3, (255,) * 3]),
    "P": (paletted(), [(10, 20, 30), (200, 100, 0), (5, 6, 7)]),
    "P with a transparent entry": (paletted(transparency=1), [(10, 20, 30), (255,) * 3, (5, 6, 7)]),
    "P with alphas": (paletted(transparency=b"\x00\x33"), [(255,) * 3, (244, 224, 204), (5, 6, 7)]),
    "RGB": (row("RGB", (1, 2, 3), RED), [(1, 2, 3), RED]),
    "RGB WebP": (row("RGB", (1, 2, 3), RED, kind="WEBP", lossless=True), [(1, 2, 3), RED]),
    "RGB TIFF, LZW": (row("RGB", (1, 2, 3), RED, kind="TIFF", compression="tiff_lzw"), [(1, 2, 3), RED]),
    "RGB JPEG": (save(Image.new("RGB", (2, 1), GRAY), "JPEG"), [GRAY] * 2),
    "L JPEG": (save(Image.new("L", (2, 1), 128), "JPEG"), [GRAY] * 2),
    "CMYK JPEG": (save(Image.new("CMYK", (2, 1), (0, 0, 0, 127)), "JPEG"), [GRAY] * 2),
    "RGB with a transparent colour": (row("RGB", (1, 2, 3), RED, transparency=RED), [(1, 2, 3), (255,) * 3]),
    "16-bit RGB": (
        raw_png(2, 1, DEPTH_16, COLOUR, b"\0" + struct.pack(">6H", 0, 257, 25700, 65535, 514, 0)),
        [(0, 1, 100), (255, 2, 0)],
    ),
    "16-bit RGB with a transparent colour": (
        raw_png(
            2,
            1,
            DEPTH_16,
            COLOUR,
            b"\0" + struct.pack(">6H", 0, 257, 514, 60000, 60000, 65535),
            struct.pack(">3H", 60000, 60000, 65535),
        ),
        [(0, 1, 2), (255,) * 3],
    ),
    "16-bit RGBA": (
        raw_png(2, 1, DEPTH_16, 6, b"\0" + struct.pack(">8H", 0, 0, 0, 65535, 0, 0, 0, 0)),
        [(0,) * 3, (255,) * 3],
    ),
    "16-bit LA": (
        raw_png(2, 1, DEPTH_16, 4, b"\0" + struct.pack(">4H", 25700, 65535, 0, 0)),
        [(100,) * 3, (255,) * 3],
    ),
    "RGBA": (row("RGBA", (*RED, 255), (0, 0, 0, 0), (0, 100, 200, 51)), [RED, (255,) * 3, (204, 224, 244)]),
    "RGBA WebP": (row("RGBA", (*RED, 255), (0, 0, 0, 0), kind="WEBP", lossless=True), [RED, (255,) * 3]),
    "RGBA TIFF": (row("RGBA", (*RED, 255), (0, 0, 0, 0), kind="TIFF"), [RED, (255,) * 3]),
    "CMYK": (
        row("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (51, 0, 0, 51), kind="TIFF"),
        [(255,) * 3, (0, 255, 255), (0,) * 3, (163, 204, 204)],
    ),
    "YCbCr": (row("YCbCr", (128, 128, 128), (76, 85, 255), kind="TIFF"), [GRAY, (254, 0, 0)]),
    "16-bit gray PNG": (raw_png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 0, 25700, 65535, 128)), None),
    "16-bit gray PNG with a transparent value": (
        raw_png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 1000, 60000), struct.pack(">H", 1000)),
        [(255,) * 3, (233,) * 3],
    ),
    "16-bit gray TIFF": (raw_tiff(4, {258: 16, 262: 1}, SIXTEEN), None),
    "16-bit gray TIFF, big-endian": (row("I;16B", 0, 25700, 65535, 128, kind="TIFF"), None),
    "16-bit gray TIFF, white is zero": (
        raw_tiff(4, {258: 16, 262: 0}, SIXTEEN),
        [(255,) * 3, (155,) * 3, (0,) * 3, (255,) * 3],
    ),
    "12-bit gray TIFF": (raw_tiff(2, {258: 12, 262: 1}, b"\xff\xf8\x00"), [(255,) * 3, (128,) * 3]),
    "animated PNG": (animated("PNG"), [RED] * 3),
    "animated WebP": (animated("WEBP"), [RED] * 3),
    "TIFF of two pages": (animated("TIFF"), [RED] * 3),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_has_its_rule(name):
    data, expected = MODES[name]
    if expected is None:  # 16-bit gray is scaled by 257 and rounded: 128 is just under a half
        expected = [(0,) * 3, (100,) * 3, (255,) * 3, (0,) * 3]
    picture = read_picture(data, (1, len(expected)), 3)
    assert picture.pixels.tolist() == [[list(pixel) for pixel in expected]]
    assert not picture.enlarged


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_a_rule_are_refused(mode):
    with pytest.raises(PictureError, match=rf"mode {mode}\b.*save it"):
        read_picture(save(Image.new(mode, (4, 4)), "TIFF"), (4, 4), 3)


def test_channels():
    data = row("RGBA", (10, 20, 30, 255), (255, 0, 0, 0), (0, 0, 0, 51))
    kept = read_picture(data, (1, 3), 4).pixels
    assert kept.tolist() == [[[10, 20, 30, 255], [255, 0, 0, 0], [0, 0, 0, 51]]]
    assert read_picture(data, (1, 3), 1).pixels.tolist() == [[[18], [255], [204]]]
    assert read_picture(row("RGB", RED), (1, 1), 4).pixels.tolist() == [[[*RED, 255]]]
    assert read_picture(row("L", 7), (1, 1), 4).pixels.tolist() == [[[7, 7, 7, 255]]]


def test_what_is_invisible_has_no_part_in_the_mean():
    pixels = np.array([[(*RED, 255), (0, 255, 0, 0)]] * 2, np.uint8)
    data = save(Image.fromarray(pixels))
    assert read_picture(data, (1, 1), 3).pixels.tolist() == [[[255, 128, 128]]]
    assert read_picture(data, (1, 1), 4).pixels.tolist() == [[[255, 0, 0, 128]]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    scene = np.zeros((16, 24), np.uint8)
    scene[:8, :8] = 255
    scene[:8, 8:16] = 128
    # What a camera held that way would have stored.
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.T,
        6: np.rot90(scene),
        7: scene[::-1, ::-1].T,
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    data = save(Image.fromarray(stored), kind, exif=exif, **options)
    picture = read_picture(data, (16, 24), 1)
    assert upright_size(data) == (16, 24)
    assert np.abs(picture.pixels[:, :, 0].astype(int) - scene).max() <= 1


def test_orientation_in_xmp_and_an_unknown_one():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    assert upright(save(Image.new("L", (3, 5)), pnginfo=info)).size == (5, 3)
    exif = Image.Exif()
    exif[0x0112] = 9
    assert upright(save(Image.new("L", (3, 5)), exif=exif)).size == (3, 5)


def test_shrinking_takes_the_mean():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    mean = pixels.reshape(8, 4, 12, 4, 3).mean(axis=(1, 3))
    picture = read_picture(save(Image.fromarray(pixels)), (8, 12), 3)
    # Pillow rounds after each of its two passes.
    assert np.abs(picture.pixels - mean).max() <= 1
    assert not picture.enlarged


def test_the_centre_is_cropped_without_scaling():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 15, 3), dtype=np.uint8)
    picture = read_picture(save(Image.fromarray(pixels)), (8, 8), 3)
    assert (picture.pixels == pixels[:, 3:11]).all()
    assert not picture.enlarged


@pytest.mark.parametrize(
    ("size", "resolution", "box"),
    [
        ((100, 200), (64, 64), (50, 0, 150, 100)),
        ((200, 100), (64, 64), (0, 50, 100, 150)),
        ((100, 100), (48, 64), (0, 12, 100, 87)),
        ((48, 64), (48, 64), (0, 0, 64, 48)),
        ((96, 127), (48, 64), (0, 0, 127, 95)),
        ((1, 1), (48, 64), (0, 0, 1, 1)),
        ((10, 20000), (64, 64), (9995, 0, 10005, 10)),
        ((20000, 1), (48, 64), (0, 9999, 1, 10000)),
    ],
)
def test_centre_box(size, resolution, box):
    assert centre_box(size, resolution) == box


@pytest.mark.parametrize("size", [(1, 1), (63, 64), (64, 63), (20000, 10), (10, 20000), (47, 64), (3, 500)])
@pytest.mark.parametrize("resolution", [(64, 64), (48, 64)])
def test_any_size_fits(size, resolution):
    picture = read_picture(save(Image.new("RGB", size, RED)), resolution, 3)
    assert picture.pixels.shape == (*resolution, 3)
    assert (picture.pixels == RED).all()
    assert picture.enlarged == (size[0] < resolution[1] or size[1] < resolution[0])


WHOLE = {
    kind: save(Image.effect_noise((40, 40), 60).convert("RGB"), kind) for kind in ("PNG", "JPEG", "WEBP")
}


@pytest.mark.parametrize("kind", WHOLE)
def test_cut_off_pictures_are_refused(kind):
    data = WHOLE[kind]
    for length in range(0, len(data) - 20, len(data) // 64):
        with pytest.raises(PictureError, match=r"cannot be decoded|not a PNG, JPEG, WebP or TIFF file"):
            read_picture(data[:length], (8, 8), 3)


SEEDS = [*WHOLE.values(), *(data for data, _ in MODES.values())]


def damage(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(rng.choice([len(data), min(len(data), 100)]))
        match rng.randrange(4):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.choice([0, 1, 127, 128, 255])
            case 2:
                data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
            case 3:
                del data[place : place + rng.randrange(1, 9)]
    return bytes(data)


def test_damaged_bytes_raise_nothing_else(capfd):
    rng, messages = random.Random(0), set()
    for _ in range(1500):
        data = damage(rng.choice(SEEDS), rng)
        try:
            picture = read_picture(data, (8, 8), 3)
        except PictureError as error:
            messages.add(str(error))
        else:
            assert picture.pixels.shape == (8, 8, 3)
    assert len(messages) > 5
    assert not any(" at 0x" in message for message in messages), "an address differs from run to run"
    capfd.readouterr()  # libtiff speaks to stderr by itself


def test_a_png_with_one_bit_changed_is_refused_or_the_same():
    whole = save(Image.linear_gradient("L").resize((64, 64)))
    pixels = read_picture(whole, (64, 64), 1).pixels
    refused = 0
    for bit in range(0, 8 * len(whole), 5):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        try:
            assert (read_picture(bytes(data), (64, 64), 1).pixels == pixels).all()
        except PictureError:
            refused += 1
    # Pillow does not ask for the end mark, the last 12 bytes.
    assert refused >= (len(whole) - 12) * 8 // 5


def test_what_is_no_picture_is_refused():
    with pytest.raises(PictureError, match=r"not a PNG, JPEG, WebP or TIFF file \(an empty file\)"):
        read_picture(b"", (2, 2), 3)
    with pytest.raises(PictureError, match="not a PNG, JPEG, WebP or TIFF file"):
        read_picture(save(Image.new("RGB", (2, 2)), "GIF"), (2, 2), 3)


def test_files_beyond_the_cap_are_not_opened():
    with pytest.raises(PictureError, match="larger than 64 MiB"):
        read_picture(bytes(MAX_BYTES + 1), (2, 2), 3)


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (9400, 9400), (12000, 12000), (60000, 60000)])
def test_bombs_are_refused_by_their_header(width, height):
    # The header is whole and there is nothing behind it: decoding would say that it is cut off.
    bomb = raw_png(width, height, 1, 0, b"")
    with pytest.raises(PictureError, match="more than 64 Mpx"):
        read_picture(bomb, (2, 2), 3)


BOMB_SCRIPT = """
import resource, sys
from kaleidogan.data.preparing.pictures import PictureError, open_picture
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_picture(data, 3)
except PictureError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_whole_bomb_costs_no_memory():
    side = 9381  # 88 Mpx of one bit each: Pillow alone decodes it without a warning
    bomb = raw_png(side, side, 1, 0, bytes((1 + (side + 7) // 8) * side))
    assert len(bomb) < 12_000
    done = subprocess.run(
        [sys.executable, "-c", BOMB_SCRIPT], input=bomb, capture_output=True, check=True, timeout=60
    )
    message, kilobytes = done.stdout.decode().splitlines()
    assert message == "more than 64 Mpx (9381 x 9381)"
    assert int(kilobytes) < 20_000


def test_the_error_travels_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(PictureError("cannot be decoded", "cut off")))
    assert (error.reason, error.detail, str(error)) == (
        "cannot be decoded",
        "cut off",
        "cannot be decoded (cut off)",
    )
