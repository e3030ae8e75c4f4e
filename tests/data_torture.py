"""Files that data sets really hold and that break readers, drawn here: each with what must become of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

ACCEPTED = ""  # instead of a pattern for the reason


def face(width: int = 96, height: int = 96) -> Image.Image:
    """A smooth picture with structure everywhere: light in the upper left, red grows downwards."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * y / max(height - 1, 1), 128 + 100 * np.sin(x / 7), 255 * x / max(width - 1, 1)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    """A PNG whose text chunk inflates to 100 MB."""
    plain = saved(face(), "PNG")
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000, 9))
    return plain[:33] + text + plain[33:]


def exif_bomb() -> bytes:
    """A JPEG whose EXIF promises four thousand million entries and points to itself."""
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 65535) + struct.pack("<HHII", 0x8769, 4, 0xFFFFFFFF, 8)
    plain = saved(face(), "JPEG")
    payload = b"Exif\0\0" + tiff
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + plain[2:]


def wide_gamut() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return saved(face(), "JPEG", icc_profile=profile.tobytes())


def swapped_rgb_profile() -> bytes:
    """An RGB profile that is not sRGB: sRGB's own with red and green primaries exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.find(b"rXYZ"), data.find(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    name = data.find("sRGB".encode("utf-16-be"))
    data[name : name + 8] = "xRGB".encode("utf-16-be")
    return bytes(data)


def exif_rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(face(96, 64), "JPEG", exif=exif.tobytes())


def with_text(size: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * size)
    return saved(face(), "PNG", pnginfo=info)


def palette_with_transparency() -> bytes:
    image = face().quantize(32)
    image.info["transparency"] = 0
    return saved(image, "PNG", transparency=0)


def sixteen_bit_rgb() -> bytes:
    values = np.full((48, 48, 3), 40000, dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 48, 48, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def fits_bomb() -> bytes:
    import gzip

    return b"SIMPLE  =                    T" + b" " * 50 + gzip.compress(b"\0" * 10_000_000)


@cache
def torture_files() -> dict[str, tuple[bytes, str]]:
    """Name -> bytes and the pattern of the reason; ACCEPTED for what must be kept."""
    jpeg, png = saved(face(), "JPEG", quality=92), saved(face(), "PNG")
    noisy = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)), "PNG")
    alpha = face().convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize((96, 96)))
    frames = [face(), face().transpose(Image.Transpose.ROTATE_90)]
    grey16 = Image.fromarray(np.full((48, 48), 40000, dtype=np.uint16))
    files: dict[str, tuple[bytes, str]] = {
        "empty.jpg": (b"", "empty"),
        "one_byte.jpg": (b"\xff", "not an image"),
        "header_only.jpg": (jpeg[:20], "not an image|damaged"),
        "cut_0.1.jpg": (jpeg[: max(1, len(jpeg) // 1000)], "not an image|damaged"),
        "cut_2.jpg": (jpeg[: len(jpeg) // 50], "not an image|damaged"),
        "cut_50.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "cut_99.jpg": (jpeg[: len(jpeg) * 99 // 100], "damaged"),
        "cut_50.png": (noisy[: len(noisy) // 2], "damaged"),
        "cut_99.png": (noisy[: len(noisy) * 99 // 100], "damaged"),
        "without_its_end.png": (png[:-12], ACCEPTED),  # every pixel is there
        "cut_50.webp": (saved(face(), "WEBP")[:300], "not an image|damaged"),
        "cut_50.gif": (saved(face(), "GIF")[:2000], "damaged"),
        "cut_50.tiff": (saved(face(), "TIFF")[:9000], "not an image|damaged"),
        "flipped_crc.png": (png[:50] + bytes([png[50] ^ 255]) + png[51:], "damaged"),
        "trailing_garbage.jpg": (jpeg + os.urandom(1000), ACCEPTED),
        "trailing_garbage.png": (png + b"garbage" * 99, ACCEPTED),
        "really_png.jpg": (png, ACCEPTED),
        "really_jpeg.png": (jpeg, ACCEPTED),
        "UPPER.JPG": (jpeg, ACCEPTED),
        "text.jpg": (b"this is a text, renamed\n" * 20, "text"),
        "html.jpg": (b"<!doctype html><html><body>404 not found</body></html>", "text"),
        "one_by_one.png": (saved(face(1, 1), "PNG"), "smaller than"),
        "needle.png": (saved(face(1, 20000), "PNG"), "smaller than"),
        "small.png": (saved(face(15, 40), "PNG"), "smaller than"),
        "just_large_enough.png": (saved(face(16, 16), "PNG"), ACCEPTED),
        "wide.png": (saved(face(2000, 20), "PNG"), ACCEPTED),
        "bomb_9000.png": (png_header(9000, 9000), "megapixels"),
        "bomb_10000.png": (png_header(10000, 10000), "megapixels"),
        "bomb_14000.png": (png_header(14000, 14000), "megapixels"),
        "bomb_2e9.png": (png_header(2**31 - 1, 2**31 - 1), "megapixels|damaged|smaller|not an image"),
        "text_bomb.png": (text_bomb(), "damaged"),
        "long_text.png": (with_text(100_000), ACCEPTED),
        "animated.gif": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), ACCEPTED),
        "animated.webp": (saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]), ACCEPTED),
        "animated.png": (saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), ACCEPTED),
        "cmyk.jpg": (saved(face().convert("CMYK"), "JPEG"), ACCEPTED),
        "cmyk.tiff": (saved(face().convert("CMYK"), "TIFF"), ACCEPTED),
        "grey.jpg": (saved(face().convert("L"), "JPEG"), ACCEPTED),
        "grey16.png": (saved(grey16, "PNG"), ACCEPTED),
        "grey16.tiff": (saved(grey16, "TIFF"), ACCEPTED),
        "rgb16.png": (sixteen_bit_rgb(), ACCEPTED),
        "one_bit.png": (saved(face().convert("1"), "PNG"), ACCEPTED),
        "palette.png": (saved(face().quantize(32), "PNG"), ACCEPTED),
        "palette_transparent.png": (palette_with_transparency(), ACCEPTED),
        "rgba.png": (saved(alpha, "PNG"), ACCEPTED),
        "la.png": (saved(alpha.convert("LA"), "PNG"), ACCEPTED),
        "rgba.webp": (saved(alpha, "WEBP"), ACCEPTED),
        "float.tiff": (saved(Image.fromarray(np.full((48, 48), 0.5, np.float32)), "TIFF"), ACCEPTED),
        "float_unknown.tiff": (saved(Image.fromarray(np.full((48, 48), 700.0, np.float32)), "TIFF"), "scale"),
        "float_nan.tiff": (saved(Image.fromarray(np.full((48, 48), np.nan, np.float32)), "TIFF"), "not finite"),
        "lab_profile.jpg": (wide_gamut(), ACCEPTED),
        "other_profile.jpg": (saved(face(), "JPEG", icc_profile=swapped_rgb_profile()), ACCEPTED),
        "broken_profile.jpg": (saved(face(), "JPEG", icc_profile=b"not a profile"), ACCEPTED),
        "progressive.jpg": (saved(face(), "JPEG", progressive=True), ACCEPTED),
        "plain.bmp": (saved(face(), "BMP"), ACCEPTED),
        "plain.ppm": (saved(face(), "PPM"), ACCEPTED),
        "lossless.webp": (saved(face(), "WEBP", lossless=True), ACCEPTED),
        "exif_bomb.jpg": (exif_bomb(), ACCEPTED),
        "apple.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
        "next.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "JPEG XL"),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG"),
        "program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\nshowpage\n", "EPS"),
        "stars.fits": (fits_bomb(), "FITS"),
        "zipped.jpg": (b"PK\x03\x04" + bytes(100), "ZIP"),
        "caf\u00e9.jpg": (saved(face(90, 90), "JPEG"), ACCEPTED),
        "cafe\u0301.jpg": (saved(face(91, 91), "JPEG"), ACCEPTED),
        "Case.png": (saved(face(92, 92), "PNG"), ACCEPTED),
        "case.png": (saved(face(93, 93), "PNG"), ACCEPTED),
        "-dash \u96ea \U0001f600 'quote\".png": (png, ACCEPTED),
    }
    for orientation in range(1, 9):
        files[f"exif_{orientation}.jpg"] = (exif_rotated(orientation), ACCEPTED)
    return files


def write_torture(folder: Path) -> dict[str, str]:
    """Write every file, and what only a file system can hold; name -> pattern of the reason, ACCEPTED for the kept."""
    expected = {}
    for name, (data, pattern) in torture_files().items():
        (folder / name).write_bytes(data)
        expected[name] = pattern
    special: dict[str, tuple[Callable[[Path], object], str]] = {
        "broken_link.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "broken link"),
        "loop.jpg": (lambda path: path.symlink_to(path.name), "loop"),
        "pipe.jpg": (os.mkfifo, "not a regular file"),
        "link.jpg": (lambda path: path.symlink_to("UPPER.JPG"), ACCEPTED),
    }
    for name, (make, pattern) in special.items():
        make(folder / name)
        expected[name] = pattern
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.png").write_bytes(torture_files()["really_png.jpg"][0])
    expected["folder.jpg/inside.png"] = ACCEPTED
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "notes.txt").write_text("left aside")
    return expected
