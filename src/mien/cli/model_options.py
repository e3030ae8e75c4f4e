"""Flags that many verbs share, each written once: how a model is loaded, and who signs what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.core.run import Device, Precision
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler

Flat = Parameter(name="*")  # the fields of a dataclass as flags without a prefix
Drawing = Annotated[DrawOptions, Flat]
ModelPath = Annotated[
    Path, Parameter(help="A run, a checkpoint inside it, a .safetensors file, or a bundled model: faces, drawn.")
]
ComputeDevice = Annotated[Device, Parameter(help="Device to compute on: auto, cpu, cuda or mps.")]
CodeFile = Annotated[Path | None, Parameter(help="Python file that defines a model of your own.")]
Labels = Annotated[
    Sequence[str],
    Parameter(negative=(), help="NAME=VALUE in [0, 1], for a label-conditional model; repeat for more labels."),
]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a model is loaded.

    Parameters
    ----------
    precision
        fp32 gives the same image on every device; bf16 is faster.
    """

    device: ComputeDevice = "auto"
    precision: Precision = "fp32"
    code: CodeFile = None

    def load(self, model: Path, options: DrawOptions = DrawOptions()) -> Sampler:
        """A model with drawing options. Raises DataError, Untrusted or Mismatch for a file that is none."""
        sampler = Sampler.load(model, device=self.device, precision=self.precision, code=self.code)
        return sampler.with_options(options)


@dataclass(frozen=True, kw_only=True)
class SignOptions:
    """Who signs the pictures.

    Parameters
    ----------
    sign
        PEM file with a certificate chain and its private key: adds a signed C2PA manifest; needs the extra `sign`.
    """

    sign: Path | None = None

    def ready(self) -> Callable[[Path], Path]:
        """What signs a written file in place; it does nothing without --sign. Reads the certificate before anything is drawn."""
        if self.sign is None:
            return lambda path: path
        from mien.export.signature import Certificate

        certificate = Certificate.read(self.sign)

        def sign(path: Path) -> Path:
            certificate.sign(path)
            return path

        return sign


Signing = Annotated[SignOptions, Flat]
Loading = Annotated[LoadOptions, Flat]
