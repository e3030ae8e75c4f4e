"""`mien sample`: faces of seeds, as one grid or as single files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.arguments import Combinations, parse_labels, parse_seeds
from mien.cli.fitted_prior import Latents, drawing
from mien.cli.result import Result
from mien.core.run import Device, Precision
from mien.errors import UsageError
from mien.report.grid import grid, picture, save_png
from mien.sampling.density import Kind
from mien.sampling.sampler import CHUNK, Sampler
from mien.sampling.styles import Style

PART = 256  # faces drawn before they are written, at most
MOST_PIXELS = 2**28  # of a grid that is painted at a size
MOST_CELLS = 4096  # of a grid
LEGIBLE = 128  # pixels: tiles with titles are enlarged to this or more


def sample(
    model: Path,
    /,
    *,
    seeds: Annotated[Sequence[str], Parameter(consume_multiple=True, negative=())] = ("0-63",),
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("faces.png"),
    label: Annotated[Sequence[str], Parameter(negative=())] = (),
    combine: str = "",
    truncation: float = 1.0,
    style: str | None = None,
    solver: str | None = None,
    guidance: float | None = None,
    columns: int | None = None,
    size: int | None = None,
    latents: Latents = "prior",
    density: Kind = "mixture",
    data: str | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    code: Path | None = None,
) -> Result:
    """Draw faces: a grid if --out ends in .png, else a folder of single files.

    Seed 42 is the same face in any batch, verb and page. Every PNG carries its recipe as metadata. Examples:

        mien sample runs/00000-quick-drawn64-s0 -o grid.png
        mien sample RUN --seeds 0-999 -o faces/
        mien sample RUN --seeds 3,42,7 --truncation 0.7
        mien sample QUICK --seeds 0-7 --style 42:fine
        mien sample VAE --latents fitted
        mien sample CPPN --seeds 42 --size 1080 -o large.png
        mien sample CGAN --label Eyeglasses=1 --label Bald=0.5
        mien sample CGAN --seeds 0-7 --combine Eyeglasses,Male -o glasses.png

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    seeds
        Which faces: 0-63, or 3,42,7, or several words.
    out
        A .png for one grid, anything else for a folder.
    label
        NAME=VALUE in [0, 1], for a model that is told labels; repeat for more.
    combine
        A,B: a row for each seed with every combination of these labels, no and yes; A:B puts those of A below each other.
    truncation
        How much of the way from the mean face is gone: under 1, faces are more typical and less varied.
    style
        SEED:STAGES, for a model whose stages have styles (quick): every face gets those of this seed in its coarse, middle or fine
        stages, or in stages by number, such as 42:2-3.
    solver
        How a flow is followed: multistep:12, midpoint:6, euler:8, heun:12, rk4:6 or adaptive:1e-4. Fewer steps are faster, and
        coarser.
    guidance
        How far a flow that is told labels leans toward them: 1 is not at all.
    columns
        Of the grid; near a square by default.
    size
        Height and width of each face in pixels, for a model that paints at any (a CPPN).
    latents
        prior: as the model was taught; fitted: from a density of the encodings of real faces, fitted on first use and kept with the
        model.
    density
        Of fitted latents: a mixture of normal distributions, or a flow.
    data
        The pack that a density is fitted to; a run knows its own.
    device
        Where to compute.
    precision
        fp32 gives the same face everywhere; bf16 is faster.
    code
        The file of a model of your own.
    """
    chosen = parse_seeds(seeds)
    if not chosen:
        raise UsageError("There is nothing to draw.", "--seeds is empty.", "Write --seeds 0-63.")
    if columns is not None and columns < 1:
        raise UsageError(f"--columns {columns} is not possible.", "It counts.", "Give 1 or more, or leave it out.")
    asked = parse_labels(label)
    sampler = Sampler.load(model, device=device, precision=precision, code=code).at(size).by(solver, guidance)
    sampler = drawing(sampler.truncated(truncation).styled(Style.of(style)), latents, density, data, model)
    if combine:
        return combined(sampler, chosen, combine, asked, out)
    recipe = sampler.recipe(truncation=truncation, **({"labels": asked} if asked else {}))
    if out.suffix.lower() == ".png":
        if len(chosen) > MOST_CELLS or (size and len(chosen) * size**2 > MOST_PIXELS):
            raise UsageError(
                f"A grid of {len(chosen)} faces is too large.",
                "It would not open anywhere.",
                "Name a folder: -o faces/.",
            )
        images = sampler.sample(chosen, asked)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(grid(images, columns), out, {**recipe, "seeds": chosen})
        return Result(str(out), {"files": [str(out)], "seeds": chosen})
    if out.suffix:
        raise UsageError(
            f"{out} is neither a .png nor a folder.", "Faces are written as PNG.", "Use -o grid.png or -o faces/."
        )
    out.mkdir(parents=True, exist_ok=True)
    files = []
    count = min(PART, max(CHUNK, MOST_PIXELS // 16 // sampler.faces.side**2))
    for start in range(0, len(chosen), count):
        part = chosen[start : start + count]
        for seed, image in zip(part, sampler.sample(part, asked), strict=True):
            file = out / f"seed{seed:08d}.png"
            save_png(picture(image), file, {**recipe, "seeds": [seed]})
            files.append(str(file))
    return Result(f"{len(files)} faces in {out}", {"files": files, "seeds": chosen})


def combined(sampler: Sampler, seeds: Sequence[int], words: str, asked: dict[str, float], out: Path) -> Result:
    """A grid of the same latents under combinations of labels, each tile with what was asked for."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is no grid.", "--combine draws rows and columns.", "Use -o grid.png.")
    table = Combinations.parse(words)
    if len(seeds) * table.cells > MOST_CELLS:
        raise UsageError(
            f"A grid of {len(seeds) * table.cells:,} faces is too large.",
            f"{len(seeds):,} seeds have {table.cells:,} combinations each.",
            "Name fewer seeds, or fewer labels.",
        )
    places, rows, titles = table.laid_out(sampler, seeds, asked)
    images = sampler.decode(sampler.latents(seeds)[places], rows, sampler.space)
    side = sampler.faces.side * max(1, -(-LEGIBLE // sampler.faces.side))  # a title needs room
    cells = [picture(image).resize((side, side), 0) for image in images]
    told = sampler.recipe(
        truncation=sampler.truncation, seeds=list(seeds), combine=words, **({"labels": asked} if asked else {})
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_png(grid(cells, table.columns, titles), out, told)
    return Result(str(out), {"files": [str(out)], "seeds": list(seeds), "titles": titles})
