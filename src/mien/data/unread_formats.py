"""Formats that are not read, and what to convert each to."""

from __future__ import annotations

from collections.abc import Mapping

from mien.data.archives import IMAGE_SUFFIXES

UNPACK = "Unpack it ({}), and give the folder."
TO_ARRAY = "Save its images as an array of uint8 [n, height, width, 3] in an .npz or .npy file."
TO_FILES = "Save its images as files, or as an array of uint8 [n, height, width, 3] in an .npz or .npy file."
CONVERT = {
    ".7z": UNPACK.format("7z x NAME"),
    ".rar": UNPACK.format("unrar x NAME"),
    ".zst": UNPACK.format("zstd -d NAME"),
    ".lz4": UNPACK.format("lz4 -d NAME"),
    **dict.fromkeys((".001", ".z01", ".cab", ".iso", ".dmg"), UNPACK.format("7z x NAME")),
    **dict.fromkeys((".mat", ".pkl", ".pickle", ".pt", ".pth", ".idx", ".ubyte", ".bin", ".nc", ".zarr"), TO_ARRAY),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".rec", ".lmdb", ".mdb", ".beton", ".msgpack", ".db"), TO_FILES),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "Save it as CSV, beside the pictures that it names."),
    ".json": "Save it as CSV or JSON Lines (.jsonl), beside the pictures that it names.",
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "Save its frames: ffmpeg -i NAME frame-%05d.png."),
    ".pdf": "Save its pictures as files: pdfimages -png NAME page.",
    **dict.fromkeys(
        (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"), "Give the archive itself, one at a time, or unpack it."
    ),
    **dict.fromkeys(IMAGE_SUFFIXES, "Give the folder that holds it: one picture is no data set."),
}


def remedy_for(other_files: Mapping[str, int]) -> str:
    """What to do with files of which none is a picture, by the suffix that most of them have."""
    known = [suffix for suffix in other_files if suffix in CONVERT]
    if not known:
        return "Give the folder or archive with the images."
    suffix = max(known, key=lambda suffix: other_files[suffix])
    return f"Of the {suffix} files: {CONVERT[suffix]}"
