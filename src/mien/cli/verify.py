"""`mien verify`: what a picture says of itself, and whether it is true."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mien.cli.fitted_prior import PriorOptions
from mien.cli.model_options import CodeFile, LoadOptions
from mien.cli.result import Result
from mien.errors import DataError, MienError, Mismatch, Untrusted, UsageError
from mien.export import signature
from mien.report.film import film
from mien.report.grid import enlarged, picture, read_marks, save_png
from mien.sampling.address import Address, SeedPoint, parse
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage.bounded_json import InvalidJSON, require
from mien.storage.provenance import IPTC, Provenance
from mien.storage.regular_file import open_regular
from mien.web.pictures import along, tiled
from mien.web.registry import Registry

LOSSY = (
    2.0  # of 255 levels, in the mean over a frame: encoders of MP4 and WebP may give other pixels for the same frames
)
BROWSER = 2  # of 255 levels, in any pixel: a browser's arithmetic is not PyTorch's
MAX_FRAMES, MAX_COLUMNS = 10_000, 100
FAULTS = (MienError, ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
SAID = ("model", "preset", "synthetic")  # of a recipe, elsewhere or in other words
Recipe = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """The model that draws again."""

    sampler: Sampler
    path: Path
    loading: LoadOptions


Redraw = Callable[[Source, Recipe, Path], Path]  # the last is the file to write


def verify(
    file: Path,
    /,
    *,
    model: Path | None = None,
    code: CodeFile = None,
) -> Result:
    """Show the origin, model, seeds and signature that a picture, a film or a page states, and draw it again.

    Exit code 8 means that the signature is broken, 9 that drawing it again gives other pixels. Examples:

        mien verify faces.png
        mien verify walk.mp4 --model runs/00000-quick-drawn64-s0

    Parameters
    ----------
    file
        A PNG, WebP, GIF or MP4 that mien wrote, or an exported page.
    model
        The model that drew it; by default, mien searches the bundled models, runs/ and demo/run for it.
    """
    marks, signed = read_marks(file), signature.read(file)
    if marks.source is None and marks.recipe is None and signed.state == "none":
        raise DataError(
            f"{file} says nothing of its origin.",
            "It has no XMP, no recipe and no signature: another program made it, or has dropped them.",
            "Name the picture that mien wrote, not a copy that was edited or re-encoded.",
        )
    _check_whole(file)
    recipe = marks.recipe or {}
    again = _again(file, recipe, model, code)
    source = (marks.source or "").removeprefix(IPTC) or "not said"
    data = {
        "file": str(file), "source": marks.source, "software": marks.software, "recipe": marks.recipe,
        "signature": {"state": signed.state, "signer": signed.signer, "why": signed.why}, "drawn_again": again,
    }  # fmt: skip
    lines = [
        f"{file}: {source}{f', written by {marks.software}' if marks.software else ''}",
        f"model: {f'{name}, ' if (name := recipe.get('preset')) else ''}{recipe.get('model') or 'not said'}",
        *(f"{name}: {_short(value)}" for name, value in recipe.items() if name not in SAID and value not in ([], None)),
        f"signature: {signed}",
        f"drawn again: {again}",
    ]
    differs = again.startswith("differs")
    return Result("\n".join(lines), data, exit_code=8 if signed.state == "invalid" else 9 if differs else 0)


def _short(value: object) -> str:
    """A value of a recipe in one line; consecutive seeds as a range."""
    numbers = value if isinstance(value, list) and all(type(item) is int for item in value) else []
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]}-{numbers[-1]}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _again(file: Path, recipe: Recipe, model: Path | None, code: Path | None) -> str:
    """`equal`, `differs: ...`, or why it cannot be drawn again."""
    try:  # a recipe may be anybody's
        redraw = _redraw(recipe)
        if isinstance(redraw, str):
            return f"not possible: {redraw}"
        path = model if model is not None else _find(str(recipe.get("model")))  # a recipe may be anybody's
        if (precision := recipe.get("precision", "fp32")) not in ("fp32", "bf16", "fp64"):
            raise InvalidJSON(f"{_short(precision)} is no precision")
        loading = LoadOptions(precision=precision, code=code)
        sampler = loading.load(path, _options(recipe))
        if sampler.model_hash != recipe.get("model"):
            raise Mismatch(
                f"{path} is another model.",
                f"It is {sampler.model_hash[:16]}, the picture names {str(recipe.get('model'))[:16]}.",
                "Name the model that drew it.",
            )
        with tempfile.TemporaryDirectory(prefix="mien-") as folder:
            source = Source(sampler, path, loading)
            drawn = redraw(source, recipe, Path(folder) / f"again{_ending(file)}")
            verdict = _difference(_frames(file), _frames(drawn), mean_within=LOSSY if _ending(file) == ".mp4" else 0.0)
            exact = redraw is not _explorer or "walk" not in recipe or _ending(file) in (".gif", ".mp4")
            if verdict == "equal" or exact:
                return verdict
            frames = map(np.asarray, _film(source, recipe))
            if _ending(file) == ".png":  # nothing was lost, so that a film which was changed in one place is noticed
                return _difference(_frames(file), frames, most_within=BROWSER)
            return _difference(_frames(file), frames, mean_within=LOSSY)
    except FAULTS as error:
        if model is not None and isinstance(error, MienError):
            raise
        if isinstance(error, MienError):
            return f"not possible: {error.what} {error.why}"
        return f"not possible: Its recipe is not whole. {str(error)[:500]}"


def _ending(file: Path) -> str:
    """The ending that belongs to a file's content: its name may have another one, or none."""
    with open_regular(file) as opened:
        if opened.read(12)[4:8] == b"ftyp":
            return ".mp4"
    with Image.open(file) as image:
        return f".{(image.format or 'png').lower()}"


def _check_whole(file: Path) -> None:
    """Raises Untrusted for a picture that ends too early. An MP4 is checked where its claims are read, and a page has no frames."""
    try:
        for _ in _frames(file) if _ending(file) != ".mp4" else ():
            pass
    except UnidentifiedImageError:
        return
    except (OSError, SyntaxError, ValueError) as error:
        raise Untrusted(
            f"{file} cannot be read.", f"It is not a whole picture: {error}.", "Name a picture that mien wrote."
        ) from error


def _find(model_hash: str) -> Path:
    """The file of a model by its SHA-256. Raises DataError where it is not found."""
    registry = Registry(())
    registry.refresh()
    for entry in registry.models.values():
        if model_hash.startswith(entry.id):
            return entry.file
    raise DataError(f"Model {model_hash[:16]} is not found here.", "Name it with --model.", "Name it with --model.")


def _options(recipe: Recipe) -> DrawOptions:
    return DrawOptions(**{f.name: recipe[f.name] for f in fields(DrawOptions) if f.name in recipe})


def _prior(recipe: Recipe) -> PriorOptions:
    return PriorOptions(prior="fitted", density=recipe["prior"]) if "prior" in recipe else PriorOptions()


def _redraw(recipe: Recipe) -> Redraw | str:
    """The function that draws a recipe again, or why there is none."""
    if not recipe.get("model"):
        return "it names no model"
    if any(name in recipe for name in ("photos", "source")) or any(
        isinstance(name, str) for name in recipe.get("of", ())
    ):
        return "photographs went into it, which it does not contain"
    seeds = [*recipe.get("seeds", ()), *recipe.get("of", ())]  # a range, as a word, would be taken for one
    if len(seeds) > MAX_FRAMES or not all(type(seed) is int for seed in seeds):
        raise InvalidJSON("its seeds are not numbers, or too many")
    if recipe.get("verb") in VERBS:
        return VERBS[recipe["verb"]]
    if any(name in recipe for name in ("at", "walk")) or {"seeds", "columns"} <= recipe.keys():
        return _explorer
    return "its recipe describes no drawing"


def _named(values: Mapping[str, float]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


def _sample(model: Source, recipe: Recipe, out: Path) -> Path:
    from mien.cli.sample import sample

    seeds, single = recipe["seeds"], not {"columns", "combine"} & recipe.keys()
    sample(
        model.path, seeds=[str(seed) for seed in seeds], out=out.with_suffix("") if single else out,
        label=_named(recipe.get("labels", {})), combine=recipe.get("combine", ""), columns=recipe.get("columns"),
        options=model.sampler.options, prior=_prior(recipe),
        loading=model.loading,
    )  # fmt: skip
    return next(out.with_suffix("").iterdir()) if single else out


def _walk(model: Source, recipe: Recipe, out: Path) -> Path:
    from mien.cli.walk import walk

    require(recipe, seeds=list, frames=int, fps=float, loop=bool, zoom=int)
    if recipe["frames"] > MAX_FRAMES:
        raise InvalidJSON(f"{recipe['frames']} frames are too many")
    lists = {name: recipe.get(name, []) for name in ("label", "label_from", "label_to")}
    walk(
        model.path, seeds=[str(seed) for seed in recipe["seeds"]], out=out, frames=recipe["frames"], fps=recipe["fps"],
        loop=recipe["loop"], columns=recipe.get("columns"), zoom=recipe["zoom"], pairs=recipe.get("pairs") is True,
        options=model.sampler.options, prior=_prior(recipe),
        loading=model.loading, **lists,
    )  # fmt: skip
    return out


def _walk_frame(model: Source, recipe: Recipe, out: Path) -> Path:
    """One of the frames that `mien walk --format` writes as shards."""
    from mien.cli.arguments import interpolate_labels, parse_labels

    require(recipe, seeds=list, frames=int, frame=int, loop=bool, zoom=int)
    if not 0 <= recipe["frame"] < recipe["frames"] or not 1 <= recipe["zoom"] <= 64:
        raise InvalidJSON(f"there is no frame {recipe['frame']}")
    sampler = _prior(recipe).apply(model.sampler, None, model.path)
    fixed, start, end = (parse_labels(recipe.get(name, [])) for name in ("label", "label_from", "label_to"))
    rows = interpolate_labels(sampler, sampler.labels(recipe["seeds"], fixed), start, end)
    z, chosen = sampler.latents(recipe["seeds"]), [recipe["frame"]]
    (image,) = map(picture, sampler.interpolate(z, recipe["frames"], rows, recipe["loop"], sampler.space, chosen))
    return save_png(enlarged(image, recipe["zoom"], Image.Resampling.NEAREST), out, recipe)


def _edit(model: Source, recipe: Recipe, out: Path) -> Path:
    from mien.cli.edit import edit

    require(recipe, of=list, directions=dict, strip=int)
    edit(
        model.path, direction=_named(recipe["directions"]), seed=[str(seed) for seed in recipe["of"]], strip=recipe["strip"],
        out=out, label=_named(recipe.get("labels", {})), layers=str(recipe.get("layers", "")), options=model.sampler.options,
        loading=model.loading,
    )  # fmt: skip
    return out


def _explorer(model: Source, recipe: Recipe, out: Path) -> Path:
    """What the explorer drew: one face, a sheet of several, a flow's path, or a film."""
    if "walk" in recipe:
        return film(_film(model, recipe), out, Provenance(recipe), require(recipe, fps=float)["fps"])
    at = recipe.get("at")
    if "stages" in recipe:
        z, row = model.sampler.latent_at(parse(str(at)), recipe.get("labels"), recipe.get("directions"))
        image = tiled(model.sampler.trajectory(z, row)[0], _columns(recipe))
    elif isinstance(at, str):
        image = _faces(model, recipe, [parse(at)])[0]
    else:
        first, last = (0, -1) if at is not None else require(recipe, seeds=list)["seeds"]
        if last - first >= MAX_FRAMES:
            raise InvalidJSON("it has too many seeds")
        addresses = [parse(text) for text in at or ()] or [Address(SeedPoint(seed)) for seed in range(first, last + 1)]
        image = tiled(_faces(model, recipe, addresses), _columns(recipe))
    return save_png(picture(image), out, recipe)


def _columns(recipe: Recipe) -> int:
    """How many faces stand in a row of the explorer's pictures."""
    columns: int = require(recipe, columns=int)["columns"]
    if not 1 <= columns <= MAX_COLUMNS:
        raise InvalidJSON(f"it has {columns} columns")
    return columns


def _faces(model: Source, recipe: Recipe, addresses: Sequence[Address]) -> torch.Tensor:
    """The faces at some addresses, as the explorer draws them, `[n, C, H, W]`."""
    named = recipe.get("labels"), recipe.get("directions"), str(recipe.get("layers", ""))
    rows = [model.sampler.latent_at(address, *named) for address in addresses]
    conditions = [row for _, row in rows if row is not None]
    return model.sampler.decode(torch.cat([z for z, _ in rows]), torch.cat(conditions) if conditions else None)


def _film(model: Source, recipe: Recipe) -> Iterator[Image.Image]:
    """The frames of a film of the explorer's, before an encoder had them."""
    require(recipe, walk=list, frames=int, loop=bool, zoom=int)
    if not 2 <= recipe["frames"] <= MAX_FRAMES or not 1 <= recipe["zoom"] <= 8:
        raise InvalidJSON("its frames or zoom are out of range")
    faces = _faces(model, recipe, along([parse(stop) for stop in recipe["walk"]], recipe["frames"], recipe["loop"]))
    return (enlarged(picture(face), recipe["zoom"], Image.Resampling.BILINEAR) for face in faces)


VERBS: Mapping[str, Redraw] = {"sample": _sample, "walk": _walk, "walk-frames": _walk_frame, "edit": _edit}


def _frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a picture or a film, `[H, W, 3]` each."""
    if _ending(path) == ".mp4":
        try:
            import av
        except ImportError:
            raise UsageError("The film cannot be read.", "PyAV is not installed.", "pip install 'mien[film]'") from None
        with av.open(str(path)) as container:
            yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            yield np.asarray(image.convert("RGB"))


def _difference(
    shown: Iterator[NDArray[np.uint8]],
    drawn: Iterator[NDArray[np.uint8]],
    mean_within: float = 0.0,
    most_within: int = 0,
) -> str:
    """`equal`, or how far two pictures or films differ.

    They are equal where no pixel differs by over `most_within` levels, or each frame by no more than `mean_within` in the mean.
    """
    most, mean = 0, 0.0
    for ours, theirs in zip_longest(drawn, shown):
        if ours is None or theirs is None:
            return "differs: another number of frames"
        if ours.shape != theirs.shape:
            return f"differs: {theirs.shape[1]}x{theirs.shape[0]} pixels, drawn again {ours.shape[1]}x{ours.shape[0]}"
        levels = np.abs(ours.astype(np.int16) - theirs)
        most, mean = max(most, int(levels.max(initial=0))), max(mean, float(levels.mean()))
    return "equal" if most <= most_within or mean <= mean_within else f"differs: by up to {most} of 255 levels"
