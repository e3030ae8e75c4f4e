"""`mien sample`: draw the faces of seeds, as one grid or as single files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from PIL import Image

from mien.cli.arguments import Combinations, parse_labels, parse_ranges, parse_seeds, positive, within
from mien.cli.bulk import sample_shards
from mien.cli.fitted_prior import FittedPrior, PriorOptions
from mien.cli.model_options import Drawing, Labels, Loading, LoadOptions, ModelPath, Signing, SignOptions
from mien.cli.result import Result
from mien.core import distributed
from mien.errors import UsageError
from mien.report.grid import enlarged, grid, picture, save_png
from mien.report.shards import Seeds
from mien.sampling.chunks import CHUNK
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler

BLOCK = 256  # images drawn before they are written, at most
MANY = 100_000  # faces: more of them are written as shards, not as single files
MAX_PIXELS = 2**28  # of a grid drawn with --size
MAX_ENLARGE = 16
MAX_CELLS = 4096  # of a grid
TITLED = 128  # pixels: cells with titles are enlarged to this side or more


def sample(
    model: ModelPath,
    /,
    *,
    seeds: Annotated[Sequence[str], Parameter(consume_multiple=True, negative=())] = ("0-63",),
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("faces.png"),
    label: Labels = (),
    combine: str = "",
    columns: int | None = None,
    enlarge: int = 1,
    format: Literal["png", "tar", "parquet"] | None = None,
    shard_size: int = 1000,
    data: str | None = None,
    options: Drawing = DrawOptions(),
    prior: FittedPrior = PriorOptions(),
    loading: Loading = LoadOptions(),
    signing: Signing = SignOptions(),
) -> Result | None:
    """Draw faces: a grid if --out ends in .png, else a folder of single files.

    Seed 42 is the same face in any batch, verb and page. Every PNG says in its metadata how it was drawn. Examples:

        mien sample runs/00000-quick-drawn64-s0 -o grid.png
        mien sample RUN --seeds 0-999 -o faces/
        mien sample RUN --seeds 3,42,7 --truncation 0.7
        mien sample QUICK --seeds 0-7 --style 42:fine
        mien sample VAE --prior fitted
        mien sample RUN --seeds 42 --enlarge 4 -o face.png
        mien sample CPPN --seeds 42 --size 1080 -o large.png
        mien sample CGAN --label Eyeglasses=1 --label Bald=0.5
        torchrun --nproc-per-node 2 -m mien sample RUN --seeds 0-9999999 -o shards/
        mien sample CGAN --seeds 0-7 --combine Eyeglasses,Male -o glasses.png

    Parameters
    ----------
    seeds
        Seeds to draw: 0-63, or 3,42,7, or several of these.
    out
        A .png for one grid, anything else for a folder.
    combine
        A,B: a row for each seed with every combination of these labels, 0 and 1; A:B varies the labels of A down the rows.
    columns
        Columns of the grid; near a square by default.
    enlarge
        Times that each face is enlarged, by Lanczos: 1 to 16. The PNG says so.
    format
        Of a folder: png for single files, tar for WebDataset shards, parquet (needs the extra `tables`); by default png, and
        tar for more than 100,000 seeds. Under torchrun each process draws its part. The same command again resumes.
    shard_size
        Faces in a shard of --format tar or parquet.
    data
        Pack that a fitted prior is fitted to; by default, the run's own.
    """
    sign = signing.ready()
    ranges = parse_ranges(seeds)
    picture_named = out.suffix.lower() == ".png"
    many = sum(map(len, ranges)) > MANY and not (picture_named or combine)
    kind = format or ("tar" if many else "png")
    if (picture_named or combine) and kind != "png":
        raise UsageError(f"--format {kind} is for a folder.", f"{out} is one picture.", "Name a folder: -o shards/.")
    if signing.sign is not None and kind != "png":
        raise UsageError("--sign signs single pictures.", f"--format {kind} writes shards.", "Add --format png.")
    chosen = parse_seeds(seeds) if kind == "png" else []
    if not ranges:
        raise UsageError("--seeds is empty.", "There is nothing to draw.", "Write --seeds 0-63.")
    positive("columns", columns)
    positive("shard_size", shard_size)
    within(
        "enlarge",
        enlarge,
        1,
        MAX_ENLARGE,
        "Each face becomes so many times as large.",
        "Use --enlarge 4, or leave it out.",
    )
    if enlarge > 1 and (combine or kind != "png"):
        raise UsageError(
            "--enlarge is for grids and single pictures.",
            "Titled cells and shards have their own size.",
            "Leave it out.",
        )
    if picture_named and distributed.rank():
        return None  # one picture is the work of one process
    labels = parse_labels(label)
    table = Combinations.parse(combine) if combine else None
    if out.suffix and not picture_named:
        raise UsageError(
            f"{out} is neither a .png nor a folder.", "Faces are written as PNG.", "Use -o grid.png or -o faces/."
        )
    sampler = prior.apply(loading.load(model, options), data, model)
    if table is not None:
        return sample_combinations(sampler, chosen, combine, table, labels, out, sign)
    metadata = sampler.metadata(verb="sample", truncation=options.truncation, **({"labels": labels} if labels else {}))
    if enlarge > 1:
        metadata["enlarged"] = enlarge
    if picture_named:
        side = (options.size or sampler.image_spec.side) * enlarge
        if len(chosen) > MAX_CELLS or ((options.size or enlarge > 1) and len(chosen) * side**2 > MAX_PIXELS):
            raise UsageError(
                f"A grid of {len(chosen):,} faces is too large.",
                f"A grid has at most {MAX_CELLS:,} faces and {MAX_PIXELS:,} pixels.",
                "Name a folder: -o faces/.",
            )
        images = sampler.sample(chosen, labels)
        pictures = [enlarged(picture(image), enlarge) for image in images] if enlarge > 1 else images
        sign(save_png(grid(pictures, columns), out, {**metadata, "seeds": chosen, "columns": columns}))
        return Result(str(out), {"files": [str(out)], "seeds": chosen})
    count = min(BLOCK, max(CHUNK, MAX_PIXELS // 16 // sampler.image_spec.side**2))
    if kind != "png":
        return sample_shards(sampler, Seeds(ranges), labels, metadata, out, kind, shard_size, count)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"seed{seed:08d}.png" for seed in chosen]
    with distributed.world("cpu") as world:
        for start in range(world.rank * count, len(chosen), world.size * count):
            block = chosen[start : start + count]
            for seed, file, image in zip(block, files[start:], sampler.sample(block, labels), strict=False):
                sign(save_png(enlarged(picture(image), enlarge), file, {**metadata, "seeds": [seed]}))
        distributed.barrier()
        if not world.first:
            return None
    return Result(f"{len(files)} faces in {out}", {"files": list(map(str, files)), "seeds": chosen})


def sample_combinations(
    sampler: Sampler,
    seeds: Sequence[int],
    words: str,
    table: Combinations,
    labels: dict[str, float],
    out: Path,
    sign: Callable[[Path], Path],
) -> Result:
    """A grid of the same latents under combinations of labels; each cell's title names its labels."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is not a .png.", "--combine draws a grid.", "Use -o grid.png.")
    if len(seeds) * table.cells > MAX_CELLS:
        raise UsageError(
            f"A grid of {len(seeds) * table.cells:,} faces is too large.",
            f"{len(seeds):,} seeds have {table.cells:,} combinations each; a grid has at most {MAX_CELLS:,} faces.",
            "Name fewer seeds or fewer labels.",
        )
    indices, rows, titles = table.cells_of(sampler, seeds, labels)
    images = sampler.decode(sampler.latents(seeds)[indices], rows, sampler.space)
    times = max(1, -(-TITLED // sampler.image_spec.side))
    cells = [enlarged(picture(image), times, Image.Resampling.NEAREST) for image in images]
    metadata = sampler.metadata(
        verb="sample",
        truncation=sampler.options.truncation,
        seeds=list(seeds),
        combine=words,
        **({"labels": labels} if labels else {}),
    )
    sign(save_png(grid(cells, table.columns, titles), out, metadata))
    return Result(str(out), {"files": [str(out)], "seeds": list(seeds), "titles": titles})
