"""Films: frames to mp4, gif, webp or a strip, and the film of a run from its sample grids."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mien.errors import DataError, UsageError
from mien.report.grid import grid, save_png
from mien.report.run_reader import sample_grids
from mien.storage.atomic import replacing
from mien.storage.provenance import Provenance

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
GIF_WIDTH = 720  # pixels
GIF_FPS = 50  # at most: browsers show a frame of less than 0.02 s for 0.1 s
STRIP_WIDTH = 8192  # pixels; a longer strip goes on in the next row
BAR, BAR_PAPER, CAPTION, CAPTION_PAPER = (86, 180, 233), (52, 52, 58), (236, 236, 240), (24, 24, 27)


def check_name(path: Path) -> str:
    """The suffix of a film's name. Raises UsageError for another one."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path.name} is not a film.",
            f"The suffix {suffix or '(none)'} names no format that mien writes.",
            f"End the name in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.",
        )
    return suffix


def film(
    frames: Iterable[Image.Image], path: Path, provenance: Provenance, fps: float = 24, columns: int | None = None
) -> Path:
    """Write `frames`, all of one size, as the suffix of `path` says: .mp4, .gif, .webp, or .png for a strip, with
    `columns` frames a row. `provenance` goes into each.

    Raises UsageError for another suffix, and for .mp4 where PyAV is not installed.
    """
    suffix = check_name(path)
    if not fps > 0:
        raise UsageError(f"{fps} frames a second is no film.", "The rate must be above 0.", "Try --fps 24.")
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = (frame.convert("RGB") for frame in frames)
    first = next(stream, None)
    if first is None:
        raise UsageError("A film needs a frame.", "There are none.", "Ask for --frames 1 or more.")
    whole = itertools.chain([first], stream)
    if suffix == ".mp4":
        return _write_mp4(whole, first.size, path, fps, provenance)
    if suffix == ".png":
        return _write_strip(list(whole), path, columns, provenance)
    if suffix == ".gif" and fps > GIF_FPS:
        print(
            f"mien: {path.name} has {GIF_FPS} frames a second instead of {fps:g}: browsers show faster GIFs at 10",
            file=sys.stderr,
        )
        fps = GIF_FPS
    held, durations = _held(list(whole), fps)
    if suffix == ".gif":
        return _write_gif(held, durations, path, provenance)
    with replacing(path) as temporary:
        more = {"save_all": True, "append_images": held[1:], "duration": durations, "loop": 0, "quality": 80}
        provenance.save(held[0], temporary, "WEBP", **more)
    return path


def _write_mp4(
    frames: Iterable[Image.Image], size: tuple[int, int], path: Path, fps: float, provenance: Provenance
) -> Path:
    """H.264 that all browsers and phones play: yuv420p, even sides, the index in front."""
    try:
        import av
    except ImportError:
        raise UsageError(
            f"{path.name} cannot be written.",
            "mp4 needs PyAV, which is not installed.",
            f"pip install 'mien[film]', or write {path.stem}.webp instead, which needs nothing.",
        ) from None
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    try:
        with replacing(path) as temporary:
            with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
                container.metadata["comment"] = provenance.claim.sentence
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.width, stream.height = even
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "18", "preset": "veryfast"}
                for frame in frames:
                    whole = frame.crop((0, 0, *even))  # an odd side gets one dark line
                    # Converted here: left to the encoder, the same frames gave eight different files in 40 runs.
                    shown = av.VideoFrame.from_image(whole).reformat(format="yuv420p")
                    container.mux(stream.encode(shown))
                container.mux(stream.encode())
            provenance.mark_mp4(temporary)
    except OSError:
        raise  # the disk, which every caller knows how to tell
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(
            f"{path.name} cannot be encoded.",
            f"This build of PyAV says: {error}.",
            f"Write {path.stem}.webp instead, which needs no PyAV.",
        ) from error
    return path


def _write_gif(frames: Sequence[Image.Image], durations: Sequence[int], path: Path, provenance: Provenance) -> Path:
    """One palette for the whole film, so that colours do not flicker: made from frames spread over it."""
    spread = [frames[index * (len(frames) - 1) // 15] for index in range(16)] if len(frames) > 16 else frames
    palette = grid(spread).quantize(256, method=Image.Quantize.FASTOCTREE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    with replacing(path) as temporary:
        provenance.save(
            indexed[0],
            temporary,
            "GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=list(durations),
            loop=0,
            optimize=False,  # would drop colours from the palette frame by frame
            palette=palette.palette,  # once for all: without it each frame repeats its own
        )
    return path


def _write_strip(frames: Sequence[Image.Image], path: Path, columns: int | None, provenance: Provenance) -> Path:
    columns = columns or max(1, min(len(frames), STRIP_WIDTH // frames[0].width))
    return save_png(grid(frames, columns=columns), path, provenance.recipe, provenance.claim)


def _held(frames: Sequence[Image.Image], fps: float) -> tuple[list[Image.Image], list[int]]:
    """Frames without immediate repeats, and the duration of each in milliseconds.

    Times are rounded to hundredths of a second, the resolution of GIF, so that the errors do not accumulate.
    """
    held: list[Image.Image] = []
    durations: list[int] = []
    for index, frame in enumerate(frames):
        duration = 10 * (round((index + 1) * 100 / fps) - round(index * 100 / fps))
        if held and frame.tobytes() == held[-1].tobytes():
            durations[-1] += duration
        else:
            held.append(frame)
            durations.append(duration)
    return held, durations


def captioned(image: Image.Image, text: str, share: float) -> Image.Image:
    """`image` over a dark strip with `text` and a bar filled to `share` in [0, 1]."""
    size = max(11, min(22, image.width // 24))
    strip = size * 2
    sheet = Image.new("RGB", (image.width, image.height + strip), CAPTION_PAPER)
    sheet.paste(image.convert("RGB"), (0, 0))
    pen = ImageDraw.Draw(sheet)
    bar = max(2, size // 6)
    pen.rectangle((0, image.height, image.width, image.height + bar - 1), fill=BAR_PAPER)
    pen.rectangle((0, image.height, round(image.width * share), image.height + bar - 1), fill=BAR)
    middle = image.height + bar + (strip - bar) / 2
    pen.text((size * 0.6, middle), text, fill=CAPTION, font=ImageFont.load_default(size), anchor="lm")
    return sheet


def training_film(run_dir: Path, out: Path | None = None) -> Path:
    """The film of a run from its sample grids: `out`, or in the run training.mp4, training.webp where PyAV is not installed.

    It lasts 6 to 20 seconds for any number of grids, and ends with a pause on the last. Raises DataError without a grid.
    """
    grids = _readable(sample_grids(run_dir))
    if not grids:
        raise DataError(
            f"{run_dir.name} has no film.",
            "No sample grid was written yet.",
            "Train longer, or sample more often with --sample-every.",
        )
    path = out or run_dir / f"training.{'mp4' if find_spec('av') is not None else 'webp'}"
    fps = 24 if path.suffix == ".mp4" else 8
    max_width = GIF_WIDTH if path.suffix == ".gif" else None  # its frames are hardly compressed
    seconds = min(max(len(grids) / 10, 6), 18)
    moving = round(seconds * fps)
    frames = [grids[index * len(grids) // moving] for index in range(moving)] + [grids[-1]] * (2 * fps)
    recipe = {"film_of": run_dir.resolve().name, "seen": grids[-1][0]}
    return film(_frames(frames, max_width), path, Provenance(recipe), fps)


def _readable(grids: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """The grids that can be opened and have the size of the last one."""
    readable: list[tuple[int, Path]] = []
    size = None
    for seen, path in reversed(grids):
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError):  # torn by a crash
            continue
        if size in (None, image.size):
            size = image.size
            readable.insert(0, (seen, path))
    return readable


def _frames(frames: Sequence[tuple[int, Path]], max_width: int | None = None) -> Iterator[Image.Image]:
    """Captioned frames, each grid opened once, shrunk to `max_width` pixels if it is wider."""
    goal = max(1, frames[-1][0])
    for (seen, path), repeats in itertools.groupby(frames):
        with Image.open(path) as image:
            if max_width is not None and image.width > max_width:
                sheet = image.convert("RGB").resize((max_width, round(image.height * max_width / image.width)))
            else:
                sheet = image.convert("RGB")
            frame = captioned(sheet, f"{seen:,} images seen", seen / goal)
        for _ in repeats:
            yield frame
