"""One file's bytes to a picture: any kind, upright, 8 bits.

Every kind that Pillow reads has one stated rule here, because Pillow's own conversions are silent: they clip
16-bit gray to white, ignore the camera's rotation, miss the transparent colour of 4-bit gray and decode
whatever size a header promises. Colour profiles are not applied.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
MAX_PIXELS = 2**26
"""64 Mpx, 8192 x 8192: what a header may promise before the picture is refused undecoded."""
MAX_BYTES = 2**26
"""64 MiB: what a file may hold before it is refused unread."""
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    AssertionError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for broken files; it documents none of it, `tests/test_pictures.py` looks for more."""
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
NO_RANGE = {
    "F": "floating-point pixels (mode F): their black and white are not stated; save it with 8 or 16 bits",
    "I": "32-bit pixels (mode I): their black and white are not stated; save it with 8 or 16 bits",
}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: what makes the picture upright."""
LYING = (5, 6, 7, 8)
"""The EXIF orientations of pictures that were taken with the camera on its side."""
PNG_DEPTH = 24
"""Where a PNG says its bit depth: signature 8, chunk head 8, width 4, height 4."""


class PictureError(ValueError):
    """A picture cannot be used.

    Attributes:
        reason: the kind of fault, the same text for all pictures that have it.
        detail: what is particular to this one; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


def open_picture(data: bytes, channels: int) -> Image.Image:
    """Decode a PNG, JPEG, WebP or TIFF (the first frame) to an upright picture of so many channels.

    Args:
        data: the file's bytes.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA); transparency goes onto white unless it is 4.

    Raises:
        PictureError: if the picture is broken, too large or of a kind that has no rule.
    """
    return _with_channels(upright(data), channels)


def upright(data: bytes) -> Image.Image:
    """Decode a file to an upright 8-bit picture of mode L, RGB or RGBA.

    Raises:
        PictureError: see `open_picture`.
    """
    if len(data) > MAX_BYTES:
        raise PictureError("larger than 64 MiB", f"{len(data)} bytes")
    with warnings.catch_warnings():
        # They are about metadata, and about a limit of pixels that is Pillow's and not ours.
        warnings.simplefilter("ignore")
        picture = _open(data)
        try:
            if picture.format == "PNG":
                # Pillow decodes damaged data as far as it goes, and looks at no checksum while it does.
                Image.open(io.BytesIO(data), formats=FORMATS).verify()
            picture.load()
            orientation = picture.getexif().get(ExifTags.Base.Orientation)
            picture = _to_eight_bits(picture, data)
        except PictureError:
            raise
        except UNREADABLE as error:
            raise PictureError("cannot be decoded", str(error)) from error
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def upright_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a picture when it is upright, from its header.

    Raises:
        PictureError: if it is too large, or none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _open(data)
        try:
            orientation = picture.getexif().get(ExifTags.Base.Orientation)
        except UNREADABLE as error:
            raise PictureError("cannot be decoded", str(error)) from error
    # Pillow turns a TIFF by itself, and gives the size that it will have.
    lies = orientation in LYING and picture.format != "TIFF"
    return picture.size if lies else (picture.height, picture.width)


def _open(data: bytes) -> Image.Image:
    """Read the header, and refuse by what it says before anything is decoded."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        # What follows in Pillow's message is its own limit, which is higher.
        raise PictureError("more than 64 Mpx", str(error).partition(" exceeds")[0]) from error
    except UnidentifiedImageError as error:
        # Pillow's message holds an address in memory, which would differ from run to run.
        detail = "" if data else "an empty file"
        raise PictureError("not a PNG, JPEG, WebP or TIFF file", detail) from error
    except UNREADABLE as error:
        raise PictureError("cannot be decoded", str(error)) from error
    if picture.width * picture.height > MAX_PIXELS:
        raise PictureError("more than 64 Mpx", f"{picture.width} x {picture.height}")
    if picture.mode in NO_RANGE:
        raise PictureError(NO_RANGE[picture.mode])
    if picture.mode not in EIGHT_BIT and not picture.mode.startswith("I;16"):
        raise PictureError(f"pixels of mode {picture.mode}; save it as RGB")
    return picture


def _to_eight_bits(picture: Image.Image, data: bytes) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _from_sixteen_bits(picture)
    if "transparency" in picture.info and picture.format == "PNG":
        _scale_transparent_colour(picture, depth=data[PNG_DEPTH])
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.uint32)
    white = 2**16 - 1
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        # Pillow hands 12 bits out as they are, and leaves white-is-zero to us where there are more than 8.
        white = 2 ** picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
        if picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            values = white - values
    gray = Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
    if "transparency" not in picture.info:
        return gray
    opaque = values != picture.info["transparency"]
    return Image.merge("LA", (gray, Image.fromarray(opaque.astype(np.uint8) * 255))).convert("RGBA")


def _scale_transparent_colour(picture: Image.Image, depth: int) -> None:
    """A PNG names its transparent colour at its own bit depth, and Pillow compares it with 8-bit pixels."""
    colour = picture.info["transparency"]
    if picture.mode == "L":
        picture.info["transparency"] = colour * 255 // (2**depth - 1)
    elif picture.mode == "RGB" and depth == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in colour)


def _with_channels(picture: Image.Image, channels: int) -> Image.Image:
    if channels == 4:
        return picture.convert("RGBA")
    if picture.mode == "RGBA":
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
        picture = white
    return picture.convert("L" if channels == 1 else "RGB")
