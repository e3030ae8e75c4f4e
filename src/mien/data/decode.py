"""Decodes a file's bytes to an upright RGB image, or raises UnreadableFile with the reason.

Every file is decoded fully, because a valid header proves nothing. 16-bit grey is scaled, not clipped; alpha is composed on a
colour; colour profiles are converted to sRGB; the EXIF rotation is applied.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

from PIL import Image, UnidentifiedImageError

from mien.data.jpeg import MAX_SCANS, decode_plain, many_scans
from mien.data.readers import UnreadableFile

if TYPE_CHECKING:
    from PIL import ImageCms  # imported where needed, as numpy is, so that workers start faster

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 50_000_000  # larger pictures are refused before decoding: each would need 200 MB of memory
MAX_JPEG_PIXELS = (
    120_000_000  # but for baseline JPEGs, of which the DCT makes a small picture line by line: telephones take 108
)
#: Of formats whose libraries hold a picture several times: 11 to 18 bytes a pixel, measured (LOG 2026-11-29 and 30).
MOST_PIXELS = {"AVIF": 24_000_000, "WEBP": 24_000_000, "JPEG2000": 20_000_000}
STRIP_PIXELS = 1_000_000  # that are converted at a time
MIN_SIDE = 16  # pixels; smaller pictures show no face
DRAFT_PIXELS = 12_000_000  # larger JPEGs are decoded at half size by the DCT: still far above any training size


class Decoded(NamedTuple):
    """An upright RGB image, and the conversions that were needed."""

    image: Image.Image
    notes: tuple[str, ...]  # such as "animated: first frame"


def decode(data: bytes, background: str = "white", exact: bool = False) -> Decoded:
    """Decode `data` to an upright sRGB image without alpha; `exact`: at its own size, however large. Raises UnreadableFile."""
    plain = decode_plain(data, MIN_SIDE, DRAFT_PIXELS)
    if plain is not None:
        return Decoded(plain, ())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes and damaged metadata; this module checks both
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.info.get("progressive") and many_scans(data):
                    raise UnreadableFile(f"a progressive JPEG of more than {MAX_SCANS} scans")
                if image.format == "TIFF":
                    silence_libtiff()
                return _decode(image, background, exact)
    except UnreadableFile:
        raise
    except UnidentifiedImageError:
        raise UnreadableFile(f"not an image that can be read: {guess_format(data)}") from None
    except Image.DecompressionBombError:
        raise UnreadableFile(f"more than {MAX_JPEG_PIXELS // 1_000_000} megapixels") from None
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise UnreadableFile(f"damaged: {error}") from error
    except (struct.error, zlib.error, MemoryError, NotImplementedError, AttributeError, RuntimeError) as error:
        raise UnreadableFile(f"damaged: {type(error).__name__} {error}") from error


@lru_cache(maxsize=1)
def silence_libtiff() -> None:
    """Keep libtiff from printing to stderr: Pillow raises for what it cannot read, and the reason is listed."""
    import ctypes

    from PIL import _imaging

    try:  # the symbols of the library that Pillow's own module is linked with
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    except (OSError, AttributeError):
        return  # linked in another way: the lines are ugly, and harmless


def _decode(image: Image.Image, background: str, exact: bool) -> Decoded:
    width, height = image.size
    by_dct = image.format == "JPEG" and not exact
    reducible = by_dct and not image.info.get("progressive")  # a progressive one is held whole
    largest = MAX_JPEG_PIXELS if reducible else MOST_PIXELS.get(image.format or "", MAX_PIXELS)
    if width * height > largest:
        raise UnreadableFile(f"{width}x{height}: more than {largest // 1_000_000} megapixels")
    if min(width, height) < MIN_SIDE:
        raise UnreadableFile(f"{width}x{height}: smaller than {MIN_SIDE} pixels")
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("animated: first frame")
    if by_dct and width * height > DRAFT_PIXELS:
        parts = 2 if width * height <= MAX_PIXELS else 4
        image.draft(None, (width // parts, height // parts))
        if parts > 2:
            notes.append("decoded at a quarter of its side")
    orientation = image.getexif().get(0x0112, 1) if image.format != "BMP" else 1
    image.load()
    if orientation in range(2, 9):
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
        notes.append("rotated by EXIF")
    profile = image.info.get("icc_profile")

    def shrink(image: Image.Image) -> int:
        return 2 if not exact and image.width * image.height > DRAFT_PIXELS else 1

    upright = _without_alpha(image, background, notes, shrink(image))
    if profile and upright.mode in ("RGB", "CMYK", "L"):
        upright = _to_srgb(upright, profile, notes, shrink(upright))
    if upright.mode != "RGB":
        notes.append(f"converted from {upright.mode}")
        upright = _in_strips(upright, "RGB", lambda strip: strip.convert("RGB"), shrink(upright))
    return Decoded(upright, tuple(notes))


def _without_alpha(image: Image.Image, background: str, notes: list[str], parts: int) -> Image.Image:
    """`image` in a mode without alpha, palette or more than 8 bits; where it has them, at 1/`parts` of its side."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        notes.append(f"scaled from {image.mode}")
        return _from_deep_grey(image, parts)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if has_alpha:
        from PIL import ImageColor

        notes.append("alpha composed")
        colour = (*ImageColor.getrgb(background)[:3], 255)

        def compose(strip: Image.Image) -> Image.Image:
            foreground = strip.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", strip.size, colour), foreground).convert("RGB")

        return _in_strips(image, "RGB", compose, parts)
    return image.convert("RGB") if image.mode == "P" else image


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image a few rows at a time, with the first row's number, which is even: what is computed of them stays small."""
    rows = max(2, STRIP_PIXELS // image.width // 2 * 2)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.info = image.info  # the colour that a palette calls transparent
        yield top, strip


def _in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image], parts: int) -> Image.Image:
    """`convert` of an image, strip by strip; with two `parts`, each 2x2 pixels become their mean, as a large JPEG's do."""
    result = Image.new(mode, (-(-image.width // parts), -(-image.height // parts)))
    for top, strip in _strips(image):
        part = convert(strip)
        result.paste(part.reduce(parts) if parts > 1 else part, (0, top // parts))
    return result


def _from_deep_grey(image: Image.Image, parts: int) -> Image.Image:
    """Grey of more than 8 bits, scaled by the range of its type: 65,535 and 1.0 become 255."""
    import numpy as np

    extremes = np.array([(values.min(), values.max()) for _, strip in _strips(image) for values in [np.asarray(strip)]])
    low, high = float(extremes.min()), float(extremes.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:  # NaN goes through both
        raise UnreadableFile("grey values that are negative or not finite")
    if image.mode == "F":
        if high > 1:
            raise UnreadableFile("floating-point values above 1: their scale is unknown")
        top = 1.0
    elif high > 65535:
        raise UnreadableFile("32-bit values: their scale is unknown")
    else:
        top = 65535.0

    def scale(strip: Image.Image) -> Image.Image:
        return Image.fromarray(np.round(np.asarray(strip, dtype=np.float64) * (255 / top)).astype(np.uint8))

    return _in_strips(image, "L", scale, parts)


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a file's colour profile to sRGB; None if the profile is sRGB."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str], parts: int) -> Image.Image:
    from PIL import ImageCms

    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image
        converted = _in_strips(
            image, "RGB", lambda strip: cast(Image.Image, ImageCms.applyTransform(strip, transform)), parts
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("colour profile unreadable: treated as sRGB")
        return image
    notes.append("colour profile converted")
    return converted


def guess_format(data: bytes) -> str:
    """The likely format of bytes that Pillow cannot read, for an error message."""
    head = data[:512].lstrip()
    signatures = {
        b"ftypheic": "HEIC, convert it to JPEG or PNG",
        b"ftypheix": "HEIC, convert it to JPEG or PNG",
        b"ftypmif1": "HEIF, convert it to JPEG or PNG",
        b"JXL ": "JPEG XL, convert it to JPEG or PNG",
        b"\xff\x0a": "JPEG XL, convert it to JPEG or PNG",
        b"<svg": "SVG, a drawing, not a photograph",
        b"%!PS": "EPS",
        b"SIMPLE": "FITS",
        b"8BPS": "Photoshop",
        b"%PDF": "PDF",
        b"\x1f\x8b": "gzip",
        b"PK\x03\x04": "a ZIP archive",
    }
    for signature, name in signatures.items():
        if head.startswith(signature) or signature in head[:64]:
            return name
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return "unknown or truncated"
    return (
        "SVG, a drawing, not a photograph"
        if "<svg" in text
        else "text"
        if text.isprintable() or "\n" in text
        else "unknown"
    )
