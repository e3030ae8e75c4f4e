"""`mien export`: write a model as ONNX, as a web page, as a Space or for the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mien.cli.model_options import CodeFile, Drawing, LoadOptions, ModelPath, Signing, SignOptions
from mien.cli.result import Result
from mien.downloads import hub
from mien.errors import UsageError
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler

Target = Literal["onnx", "web", "space", "hub"]


def export(
    model: ModelPath,
    /,
    *,
    to: Target,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    push: str | None = None,
    code: CodeFile = None,
    options: Drawing = DrawOptions(),
    signing: Signing = SignOptions(),
) -> Result:
    """Export a model: as ONNX, as a web page or a Space that runs it in the browser, or as a folder for the Hugging Face Hub.

    Every ONNX graph is compared with PyTorch before the file is kept. Examples:

        mien export RUN --to onnx                 # RUN.onnx, and RUN-encoder.onnx where there is one
        mien export RUN --to web -o site          # a folder for any static host
        mien export RUN --to space --push me/faces   # that page as a static Space of the Hugging Face Hub
        mien export RUN --to hub -o folder --push me/my-faces

    Parameters
    ----------
    to
        Format: onnx, web, space or hub.
    out
        The .onnx file, or the folder; by default named after the model.
    push
        For hub and space: upload the folder to this repository (OWNER/NAME) as well; needs the extra `hub` and a login.
    """
    if push is not None and to not in ("hub", "space"):
        raise UsageError(
            "--push needs --to hub or --to space.",
            f"--to {to} writes local files.",
            "Leave out --push, or use --to hub.",
        )
    if signing.sign is not None and to != "hub":
        raise UsageError(
            "--sign needs --to hub.",
            f"--to {to} writes no picture; a page draws its own, without the key.",
            "Leave out --sign, or use --to hub.",
        )
    sign = signing.ready()
    if options.truncation != 1.0:
        raise UsageError(
            "--truncation cannot be fixed in an export.",
            "An exported model has truncation as an input.",
            "Leave it out, and set the input instead.",
        )
    if to == "onnx" and out is not None and out.suffix != ".onnx":
        raise UsageError(f"{out} does not end in .onnx.", "--to onnx writes an ONNX file.", "Use -o faces.onnx.")
    if push is not None:
        hub.check(push, "Write --push OWNER/NAME.")
    sampler = LoadOptions(device="cpu", code=code).load(model, options)
    name = (model.parent if model.name == "model.safetensors" else model).resolve().name.removesuffix(".safetensors")
    if to == "onnx":
        return to_onnx(sampler, out or Path(f"{name}.onnx"))
    if to in ("web", "space"):
        from mien.export.page import write_page

        space = to == "space"
        page = write_page(sampler, name, model, out or Path(f"{name}-{'space' if space else 'page'}"), space)
        pushed = hub.push(page.path, push, space=True) if push else None
        data = {"path": str(page.path), "files": list(page.files), "bytes": page.bytes, "difference": page.difference}
        size_mb = f"{page.path}: {len(page.files)} files, {page.bytes / 1e6:.1f} MB{f', pushed to {pushed}' if pushed else ''}"
        alone = "model.json" not in page.files
        how = f"open {page.path / 'index.html'}" if alone else f"python -m http.server --directory {page.path}"
        text = f"{size_mb}\nTry it: {how}"
        return Result(text, {**data, "pushed": pushed} if space else data)
    from mien.export.folder import PICTURE, write_folder

    folder = write_folder(sampler, name, model, out or Path(f"{name}-hub"))
    sign(folder / PICTURE)
    address = hub.push(folder, push) if push else None
    return Result(f"{folder}{f', pushed to {address}' if address else ''}", {"path": str(folder), "pushed": address})


def to_onnx(sampler: Sampler, out: Path) -> Result:
    """The generator, and the encoder beside it."""
    from mien.export import graph

    generator = graph.drawing(sampler, out)
    files = [generator]
    lines = [
        f"{generator.path}: inputs {', '.join(generator.inputs)}; differs from PyTorch by {generator.difference:.1g}"
    ]
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
