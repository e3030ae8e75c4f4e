"""More archives that were made to exhaust memory or time: pictures that are bombs, overlaps, counts, Parquet's own tricks."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from tests.data_torture import chunk, face, png_header, saved

#: What an archive holds, or what makes it, where that takes a second and an excerpt may leave it out.
Content = bytes | Callable[[], bytes]


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zeros(count: int) -> bytes:
    """`count` zeros, deflated without holding them."""
    packer, block = zlib.compressobj(9), b"\0" * (1 << 20)
    return (
        b"".join(packer.compress(block[: min(1 << 20, count - at)]) for at in range(0, count, 1 << 20)) + packer.flush()
    )


def png(width: int, height: int, depth: int, kind: int, row: int, *more: bytes, interlaced: int = 0) -> bytes:
    """A black PNG of rows of `row` bytes, whose pixels are all there."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    body = b"".join([chunk(b"IHDR", header), *more, chunk(b"IDAT", zeros((row + 1) * height)), chunk(b"IEND", b"")])
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(width: int, height: int, **tags: int) -> bytes:
    """A TIFF header with a few entries, and no pixels."""
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 1 << 30}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + packed + b"\0" * 400


def scans(width: int, height: int, count: int, mode: str = "L") -> bytes:
    """A progressive JPEG with one of its scans again and again: each goes over every pixel."""
    data = saved(Image.new(mode, (width, height)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def pictures(most: int) -> Iterator[tuple[str, bytes]]:
    """Single pictures that are bombs, as name and content."""
    side = 7000 if most > 100_000_000 else 1500
    for name, depth, kind, channels in (
        ("rgba16", 16, 6, 8),
        ("rgb16", 16, 2, 6),
        ("grey16", 16, 0, 2),
        ("rgba", 8, 6, 4),
    ):
        yield f"{name}.png", png(side, side, depth, kind, side * channels)
    yield "interlaced.png", png(side, side, 8, 6, side * 4, interlaced=1)
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256))
    yield "palette.png", png(side, side, 8, 3, side, palette)
    small = png(64, 64, 8, 2, 192)
    for name, head in (("iccp", b"iCCPx\0\0"), ("itxt", b"iTXtx\0\1\0\0\0"), ("ztxt", b"zTXtx\0\0")):
        yield f"{name}.png", small[:33] + chunk(head[:4], head[4:] + zeros(most)) + small[33:]
    yield "texts.png", small[:33] + chunk(b"zTXt", b"x\0\0" + zeros(900_000)) * 3000 + small[33:]
    yield "chunks.png", small[:33] + chunk(b"tEXt", b"a\0b") * 400_000 + small[33:]
    yield "promise.png", small[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt" + small[33:]
    yield "frames.png", small[:33] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + small[33:]
    grey = Image.new("L", (side, side))
    yield "cmyk.jpg", saved(Image.new("CMYK", (side, side)), "JPEG")
    yield "progressive.jpg", saved(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    yield "scans.jpg", scans(side // 2, side // 2, 3000)
    yield "header.jpg", saved(face(), "JPEG").replace(struct.pack(">HH", 96, 96), struct.pack(">HH", 65500, 65500))
    yield "lab.tif", saved(Image.new("LAB", (side, side)), "TIFF", compression="tiff_adobe_deflate")
    yield "float.tif", saved(Image.new("F", (side, side)), "TIFF", compression="tiff_adobe_deflate")
    yield "rgba.tif", saved(Image.new("RGBA", (side, side)), "TIFF", compression="tiff_lzw")
    yield "wide.tif", tiff(2**31 - 1, 2**31 - 1)
    yield "tiles.tif", tiff(6000, 6000, t322=16, t323=16, t324=8, t325=2**31 - 1)
    yield "strips.tif", tiff(6000, 6000, t278=1)
    yield "samples.tif", tiff(6000, 6000, t277=65535)
    yield (
        "frames.gif",
        saved(grey.resize((64, 64)), "GIF")[:-1]
        + (b"," + struct.pack("<HHHHB", 0, 0, 64, 64, 0) + b"\2\1\0\0") * 300_000,
    )
    yield (
        "wide.gif",
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\0\0\0,"
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\2\0;",
    )
    yield "lossless.webp", saved(Image.new("RGBA", (side, side)), "WEBP", lossless=True, method=0)
    yield "wide.webp", b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0\x2f\xff\xff\xff\xff" + b"\0" * 10
    yield "wide.ppm", b"P6 60000 60000 255\n" + b"\0" * 100
    yield "digits.ppm", b"P3 " + b"9" * 1_000_000 + b" 1 255\n"
    yield "plain.pbm", b"P1 7000 7000\n" + b"1" * 49_000_000
    yield (
        "wide.bmp",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield (
        "rle.bmp",
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 1078, 0, 1078, 40, side, side, 1, 8, 1, 0, 0, 0, 0, 0)
        + bytes(1024)
        + b"\xff\0" * (side * side // 255),
    )
    yield "jp2.jp2", saved(Image.new("RGB", (side, side)), "JPEG2000")
    yield "exif.jpg", saved(face(), "JPEG", exif=Image.Exif().tobytes() + b"\0" * 60_000)


def one_member(count: int, size: int) -> bytes:
    """A ZIP whose directory names one member `count` times: what each of them inflates to is stored once."""
    content = zlib.compress(b"\0" * size, 9)[2:-4]
    checksum = zlib.crc32(b"\0" * size)
    local = (
        b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, checksum, len(content), size, 5, 0) + b"a.png" + content
    )
    entries = []
    for number in range(count):
        name = b"%06d.png" % number
        entries.append(
            b"PK\1\2"
            + struct.pack(
                "<HHHHHHIIIHHHHHII", 20, 20, 0, 8, 0, 33, checksum, len(content), size, len(name), 0, 0, 0, 0, 0, 0
            )
            + name
        )
    directory = b"".join(entries)
    return (
        local
        + directory
        + b"PK\5\6"
        + struct.pack("<HHHHIIH", 0, 0, min(count, 65535), min(count, 65535), len(directory), len(local), 0)
    )


def zip64(size: int, count: int = 1) -> bytes:
    """A ZIP whose extra field and whose zip64 record say what they like."""
    data = saved(face(), "PNG")
    local = (
        b"PK\3\4"
        + struct.pack("<HHHHHIIIHH", 45, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), 5, 0)
        + b"a.png"
        + data
    )
    extra = struct.pack("<HHQQQ", 1, 24, size, size, 0)
    entry = (
        b"PK\1\2"
        + struct.pack(
            "<HHHHHHIIIHHHHHII",
            45,
            45,
            0,
            0,
            0,
            33,
            zlib.crc32(data),
            2**32 - 1,
            2**32 - 1,
            5,
            len(extra),
            0,
            0,
            0,
            0,
            2**32 - 1,
        )
        + b"a.png"
        + extra
    )
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(entry), len(local))
    place = b"PK\6\7" + struct.pack("<IQI", 0, len(local) + len(entry), 1)
    return (
        local
        + entry
        + record
        + place
        + b"PK\5\6"
        + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A tar with an extended header of these records before a picture."""
    info = tarfile.TarInfo("x")
    info.size, info.type = len(records), kind
    picture = tarfile.TarInfo("a.png")
    content = saved(face(), "PNG")
    picture.size = len(content)
    pad = b"\0" * (-len(records) % 512)
    return (
        info.tobuf(tarfile.GNU_FORMAT)
        + records
        + pad
        + picture.tobuf()
        + content
        + b"\0" * (-len(content) % 512 + 1024)
    )


def headers(count: int, kind: bytes, name: str = "../" * 20 + "a%d.png", link: str = "/etc/passwd") -> bytes:
    """A tar of many empty members."""
    parts = []
    for number in range(count):
        info = tarfile.TarInfo(name % number)
        info.type, info.linkname = kind, link
        parts.append(info.tobuf(tarfile.GNU_FORMAT))
    return b"".join(parts) + b"\0" * 1024


def parquets(most: int) -> Iterator[tuple[str, Content]]:
    """Parquet files whose columns are far larger than they."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = saved(face(), "PNG")

    def written(table: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **{"compression": "zstd", "write_statistics": False, **options})
        return buffer.getvalue()

    def write(name: str, table: Any, **options: Any) -> tuple[str, Content]:
        return f"{name}.parquet", partial(written, table, **options)

    yield write("value", pa.table({"image": [good, b"\0" * most]}))
    large = pa.array([good + b"\0" * (most // 600)], pa.large_binary())
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), large)
    yield write("dictionary", pa.table({"image": column}))
    yield write("texts", pa.table({"image": [good] * 2, "text": ["x" * (most // 2)] * 2}))
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["x" * 1_000_000]))
    yield write(
        "words",
        pa.table(
            {
                "image": pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array([good])),
                "text": words,
            }
        ),
    )
    yield write(
        "lists",
        pa.table(
            {"image": [good], "v": pa.ListArray.from_arrays([0, most // 4], pa.array(np.zeros(most // 4, np.int8)))}
        ),
    )
    yield write("numbers", pa.table({"file": pa.array(np.zeros(most // 8)), "age": pa.array(np.zeros(most // 8))}))
    yield "columns.parquet", lambda: written(pa.table({"image": [good], **{f"c{n}": [1] for n in range(30_000)}}))
    deep: Any = pa.int8()
    for _ in range(900):
        deep = pa.struct([("a", deep)])
    yield write("deep", pa.table({"image": [good], "d": pa.nulls(1, deep)}))
    yield write(
        "metadata",
        pa.table({"image": [good]}).replace_schema_metadata(
            {"huggingface": "[" * (most // 10), "x": "y" * (most // 10)}
        ),
    )
    yield write("groups", pa.table({"image": [good] * 10_000}), row_group_size=1)
    yield write("page", pa.table({"image": [good] * 1000}), data_page_size=1 << 30, use_dictionary=False)
    data = written(pa.table({"image": [good]}))
    yield "thrift.parquet", data[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"
    yield "cut.parquet", data[: len(data) // 2] + b"PAR1"
    buffer = io.BytesIO()
    with pa.ipc.new_stream(
        buffer, pa.schema([("image", pa.binary())]), options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as stream:
        stream.write_batch(pa.record_batch([pa.array([good, b"\0" * most])], ["image"]))
    yield "value.arrow", buffer.getvalue()


def more(most: int) -> Iterator[tuple[str, Content]]:
    """Name and bytes of archives; bombs inflate to `most` bytes."""
    good = {f"{n}.png": saved(face(), "PNG") for n in range(3)}
    for name, content in pictures(most):
        yield f"picture-{name}.zip", zipped({**good, name: content})
    yield "overlap.zip", one_member(50_000, min(most, 90_000_000))
    yield "overlap-small.zip", one_member(300_000, 64)
    for size, count in ((2**63 - 1, 1), (2**40, 1), (10_000, 2**40)):
        yield f"zip64-{size}-{count}.zip", zip64(size, count)
    damaged = bytearray(zipped(good, zipfile.ZIP_STORED))
    damaged[300] ^= 1
    yield "checksum.zip", bytes(damaged)
    yield "comment.zip", zipped(good)[:-2] + struct.pack("<H", 65535) + b"PK\5\6" * 16000
    yield "same.zip", one_member(65_000, 0)
    yield "records.tar", pax(b"".join(b"%d k%07d=v\n" % (14, n) for n in range(min(most // 14, 4_000_000))))
    yield (
        "global.tar",
        pax(b"".join(b"%d k%07d=v\n" % (14, n) for n in range(min(most // 14, 4_000_000))), tarfile.XGLTYPE),
    )
    long = min(most, 60_000_000)
    yield (
        "comment.tar",
        pax(b"%d comment=" % (long + 17) + b"x" * (long - len(b"%d comment=" % (long + 17)) + 16) + b"\n"),
    )
    yield "length.tar", pax(b"9" * 1_000_000 + b" path=x\n")
    yield "hundred.tar.gz", lambda: gzip.compress(pax(b"%d comment=" % 100_000_019 + b"x" * 100_000_000 + b"\n"), 1)
    for name, kind in (
        ("symbolic", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("folders", tarfile.DIRTYPE),
        ("files", tarfile.REGTYPE),
    ):
        yield f"{name}.tar.gz", lambda kind=kind: gzip.compress(headers(100_000, kind), 1)
    again = pax(b"20 path=" + b"x" * 11 + b"\n")[:-1024]
    yield "again.tar.gz", gzip.compress(again * 30_000, 1)
    yield "twice.tar.gz.gz", gzip.compress(gzip.compress(headers(10, tarfile.REGTYPE) + b"\0" * (most // 10)))
    for kind in ("json", "cls", "txt"):
        parts = {"0.png": good["0.png"], f"0.{kind}": b"9" * min(most, 90_000_000)}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in parts.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        yield f"shard-{kind}.tar", buffer.getvalue()
    yield "line.zip", zipped({**good, "labels.csv": b"file,age\n0.png," + b"9" * min(most, 500_000_000)})
    yield "comma.zip", zipped({**good, "labels.csv": b"," * min(most, 90_000_000)})
    yield (
        "titles.zip",
        zipped({**good, "labels.csv": b"file," + b",".join(b"c%d" % n for n in range(1_000_000)) + b"\n"}),
    )
    yield "quotes.zip", zipped({**good, "labels.csv": b'file,a\n0.png,"' + b"\n" * min(most, 90_000_000)})
    yield (
        "digits.zip",
        zipped({**good, "labels.csv": b"file,a\n" + b"".join(b"%d.png,%s\n" % (n, b"9" * 900_000) for n in range(3))}),
    )
    yield (
        "keys.zip",
        zipped(
            {
                **good,
                "metadata.jsonl": b'{"file_name": "0.png"' + b"".join(b',"k%d":1' % n for n in range(80_000)) + b"}\n",
            }
        ),
    )
    yield "nest.zip", zipped({**good, "metadata.jsonl": b'{"file_name": "0.png", "a": ' + b"[" * 400_000 + b"\n"})
    yield (
        "celeba.zip",
        zipped({**good, "list_attr_celeba.txt": b"99999999999\n" + b"A " * 2_000_000 + b"\n0.png" + b" 1" * 2_000_000}),
    )
    yield (
        "identity.zip",
        zipped({**good, "identity_CelebA.txt": b"".join(b"%d.png %d\n" % (n, 10**30) for n in range(1_000_000))}),
    )
    vectors = {"labels": [[name, [0.5] * 300_000] for name in good]}
    yield "vectors.zip", zipped({**good, "dataset.json": json.dumps(vectors).encode()})
    yield (
        "entries.zip",
        zipped({**good, "dataset.json": b'{"labels": [' + b'["0.png", 1],' * 3_000_000 + b'["1.png", 0]]}'}),
    )
    yield "sheet.zip", zipped({**good, "labels.csv": b"file,a\n" + b"0.png,1\n" * (min(most, 90_000_000) // 8)})
    yield (
        "tags.zip",
        zipped(
            {
                **good,
                "labels.csv": b"file,a\n"
                + b"".join(
                    b"%d.png,%s\n" % (n, b"|".join(b"t%d" % ((n * m) % 9999) for m in range(9999))) for n in range(3)
                ),
            }
        ),
    )
    yield "header.zip", zipped({**good, "a.png": png_header(2**31 - 1, 2**31 - 1)})
    yield from parquets(most)
