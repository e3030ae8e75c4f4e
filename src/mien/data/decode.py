"""Decodes a file's bytes to an upright RGB image, or raises UnreadableFile with the reason.

Every file is decoded fully, because a valid header proves nothing. 16-bit grey is scaled, not clipped; alpha is composed on a
colour; colour profiles are converted to sRGB; the EXIF rotation is applied.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, UnidentifiedImageError

from mien.data.jpeg import decode_plain
from mien.data.readers import UnreadableFile

if TYPE_CHECKING:
    from PIL import ImageCms  # imported where needed, as numpy is, so that workers start faster

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 50_000_000  # larger pictures are refused before decoding: each would need 200 MB of memory
MAX_JPEG_PIXELS = (
    120_000_000  # but for baseline JPEGs, of which the DCT makes a small picture line by line: telephones take 108
)
MIN_SIDE = 16  # pixels; smaller pictures show no face
DRAFT_PIXELS = 12_000_000  # larger JPEGs are decoded at half size by the DCT: still far above any training size


class Decoded(NamedTuple):
    """An upright RGB image, and the conversions that were needed."""

    image: Image.Image
    notes: tuple[str, ...]  # such as "animated: first frame"


def decode(data: bytes, background: str = "white") -> Decoded:
    """Decode `data` to an upright sRGB image without alpha. Raises UnreadableFile with the reason."""
    plain = decode_plain(data, MIN_SIDE, DRAFT_PIXELS)
    if plain is not None:
        return Decoded(plain, ())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes and damaged metadata; this module checks both
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.format == "TIFF":
                    silence_libtiff()
                return _decode(image, background)
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


def _decode(image: Image.Image, background: str) -> Decoded:
    width, height = image.size
    reducible = image.format == "JPEG" and not image.info.get("progressive")  # a progressive one is held whole
    largest = MAX_JPEG_PIXELS if reducible else MAX_PIXELS
    if width * height > largest:
        raise UnreadableFile(f"{width}x{height}: more than {largest // 1_000_000} megapixels")
    if min(width, height) < MIN_SIDE:
        raise UnreadableFile(f"{width}x{height}: smaller than {MIN_SIDE} pixels")
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("animated: first frame")
    if image.format == "JPEG" and width * height > DRAFT_PIXELS:
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
    upright = _without_alpha(image, background, notes)
    if profile and upright.mode in ("RGB", "CMYK", "L"):
        upright = _to_srgb(upright, profile, notes)
    if upright.mode != "RGB":
        notes.append(f"converted from {upright.mode}")
        upright = upright.convert("RGB")
    return Decoded(upright, tuple(notes))


def _without_alpha(image: Image.Image, background: str, notes: list[str]) -> Image.Image:
    """`image` in a mode without alpha, palette or more than 8 bits."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        notes.append(f"scaled from {image.mode}")
        return _from_deep_grey(image)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if has_alpha:
        from PIL import ImageColor

        notes.append("alpha composed")
        foreground = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(canvas, foreground).convert("RGB")
    return image.convert("RGB") if image.mode == "P" else image


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, scaled by the range of its type: 65,535 and 1.0 become 255."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all() or low < 0:
        raise UnreadableFile("grey values that are negative or not finite")
    if image.mode == "F":
        if high > 1:
            raise UnreadableFile("floating-point values above 1: their scale is unknown")
        top = 1.0
    elif high > 65535:
        raise UnreadableFile("32-bit values: their scale is unknown")
    else:
        top = 65535.0
    return Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a file's colour profile to sRGB; None if the profile is sRGB."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    from PIL import ImageCms

    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
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
