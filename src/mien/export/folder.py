"""Exports a folder in the layout of the Hugging Face Hub: model, card, configuration, picture."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mien.core.contracts import JSON
from mien.errors import StorageError, UsageError
from mien.export.card import card_of
from mien.export.graph import description
from mien.report.grid import grid, save_png
from mien.sampling import bundled, sidecar
from mien.sampling.sampler import Sampler
from mien.storage import atomic

SEEDS = range(16)
PICTURE = "faces.png"
USE = """
## From Python

```python
import mien

faces = mien.load("hf://OWNER/NAME").sample(seeds=range(16))
```

Without mien, the weights and all that the file says of them:

```python
import json

from huggingface_hub import hf_hub_download
from safetensors import safe_open

path = hf_hub_download("OWNER/NAME", "model.safetensors")
with safe_open(path, framework="pt") as file:
    header = json.loads(file.metadata()["mien"])  # the networks' configuration, image size, labels
    tensors = {name: file.get_tensor(name) for name in file.keys()}
print(header["config"], {name: tensor.shape for name, tensor in tensors.items()})
```
"""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all is written. Raises UsageError if `out` holds something, or StorageError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty.", "The export needs a new or empty folder.", "Choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    beside.mkdir()
    try:
        yield beside
        if out.exists():
            out.rmdir()
        atomic.rename(beside, out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written.", str(error), "Free space, or choose another --out.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_folder(sampler: Sampler, name: str, source: Path, out: Path) -> Path:
    """Write the folder `out` atomically: the model, config.json, README.md, faces.png, and the extras of the model."""
    with new_folder(out) as beside:
        shutil.copyfile(bundled.model_file(source), beside / bundled.MODEL)
        recipe = sampler.metadata(verb="sample", seeds=list(SEEDS), columns=None)
        save_png(grid(sampler.sample(SEEDS)), beside / PICTURE, recipe)
        config: JSON = {"library_name": "mien", **description(sampler)}
        atomic.write_bytes(beside / "config.json", json.dumps(config, indent=1, sort_keys=True).encode())
        card = card_of(sampler, source, name)
        atomic.write_bytes(beside / "README.md", f"{card}\n![Faces of seeds 0 to 15](faces.png)\n{USE}".encode())
        if sampler.extras_folder is not None:
            for extra in sidecar.files_of(sampler.extras_folder, sampler.model_hash):
                (beside / "extras").mkdir(exist_ok=True)
                shutil.copyfile(extra, beside / "extras" / extra.name)
    return out
