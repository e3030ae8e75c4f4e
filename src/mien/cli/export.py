"""`mien export`: a model for other engines and other people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mien.cli.result import Result
from mien.errors import UsageError

Target = Literal["onnx", "web", "hub"]


def export(
    model: Path,
    /,
    *,
    to: Target,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    push: str | None = None,
    size: int | None = None,
    solver: str | None = None,
    guidance: float | None = None,
    code: Path | None = None,
) -> Result:
    """Take a model elsewhere: as ONNX, as a page that draws inside the visitor's browser, or as a folder for the Hugging Face Hub.

    Every graph is compared with PyTorch before it gets its name. Examples:

        mien export RUN --to onnx                 # RUN.onnx, and RUN-encoder.onnx where there is one
        mien export RUN --to web -o site          # a folder for any static host
        mien export RUN --to hub -o folder --push me/my-faces

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    to
        onnx, web or hub.
    out
        The .onnx file, or the folder; by default named after the model.
    push
        For hub: upload the folder to this repository (OWNER/NAME) as well; needs the extra `hub` and a login.
    size
        Height and width of each face in pixels, for a model that paints at any (a CPPN).
    solver
        For a flow: how it is followed, such as euler:8.
    guidance
        For a flow with labels: how far it leans toward them.
    code
        The file of a model of your own.
    """
    from mien.sampling.sampler import Sampler

    if push is not None and to != "hub":
        raise UsageError("--push is for --to hub.", f"--to {to} writes files.", "Leave it out.")
    sampler = Sampler.load(model, device="cpu", precision="fp32", code=code).at(size).by(solver, guidance)
    name = (model.parent if model.name == "model.safetensors" else model).resolve().name.removesuffix(".safetensors")
    if to == "onnx":
        return to_onnx(sampler, out or Path(f"{name}.onnx"))
    if to == "web":
        from mien.export.page import write_page

        page = write_page(sampler, name, model, out or Path(f"{name}-page"))
        data = {"path": str(page.path), "files": list(page.files), "bytes": page.bytes, "difference": page.difference}
        size_mb = f"{page.path}: {len(page.files)} files, {page.bytes / 1e6:.1f} MB"
        text = f"{size_mb}\nTry it: python -m http.server --directory {page.path}"
        return Result(text, data)
    from mien.downloads import hub
    from mien.export.folder import write_folder

    folder = write_folder(sampler, name, model, out or Path(f"{name}-hub"))
    address = hub.push(folder, push) if push else None
    return Result(f"{folder}{f', pushed to {address}' if address else ''}", {"path": str(folder), "pushed": address})


def to_onnx(sampler: object, out: Path) -> Result:
    """The generator, and the encoder beside it."""
    from mien.export import graph
    from mien.sampling.sampler import Sampler

    assert isinstance(sampler, Sampler)
    if out.suffix != ".onnx":
        raise UsageError(f"{out} is no ONNX file.", "Its name ends differently.", "Use -o faces.onnx.")
    drawn = graph.drawing(sampler, out)
    files = [drawn]
    lines = [f"{drawn.path}: inputs {', '.join(drawn.inputs)}; differs from PyTorch by {drawn.difference:.1g}"]
    try:
        encoder = graph.encoding(sampler, out.with_name(f"{out.stem}-encoder.onnx"))
        if encoder is not None:
            files.append(encoder)
            lines.append(
                f"{encoder.path}: input {', '.join(encoder.inputs)}; differs from PyTorch by {encoder.difference:.1g}"
            )
    except UsageError as error:
        lines.append(f"no encoder: {error.why}")
    data = [{"path": str(f.path), "inputs": list(f.inputs), "difference": f.difference} for f in files]
    return Result("\n".join(lines), {"files": data})
