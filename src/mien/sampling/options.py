"""How a model draws: truncation, style mixing, ODE solver, guidance, image size and compression, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from torch import Tensor

from mien.core.contracts import JSON, Model
from mien.core.families import CompressedModel, FlowModel, ResolutionFreeModel, StyleModel
from mien.errors import UsageError
from mien.nn.labels import guided
from mien.nn.ode import Solution
from mien.sampling.styles import Style

MAX_SIZE = 4096  # pixels a side
MAX_GUIDANCE = 100.0


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How images are drawn, whatever their latents are: the same options in Python, as flags and, but for the last, in the web API.

    The fields are plain text and numbers, so that they can be flags, query parameters, metadata and dictionary keys.
    Raises UsageError for a value that no model accepts.

    Parameters
    ----------
    truncation
        Truncation psi: 0 is the mean face, 1 is no truncation. Below 1, faces are more typical and less varied.
    style
        SEED:STAGES, for a model with style stages (quick, gan): every face takes the style of this seed in its coarse,
        middle or fine stages, or in stages by number, such as 42:2-3.
    solver
        ODE solver of a flow: multistep:12, midpoint:6, euler:8, heun:12, rk4:6 or adaptive:1e-4. Fewer steps are faster and
        less exact. By default, the model's own.
    guidance
        Guidance scale of a label-conditional model: 1 is no guidance, 2 follows the labels closely, and faces vary less.
        By default, the model's own.
    size
        Height and width of each image in pixels, for a resolution-free model (a CPPN).
    uncompressed
        Without the JPEG compression that a gan of JPEG files gives its images, as its training images have it.
    """

    truncation: float = 1.0
    style: str | None = None
    solver: str | None = None
    guidance: float | None = None
    size: int | None = None
    uncompressed: bool = False

    def __post_init__(self) -> None:
        if not isfinite(self.truncation):
            raise UsageError(
                f"truncation must be a finite number, not {self.truncation}.",
                "It multiplies the distance from the mean face.",
                "Give 1 for no truncation, or 0.7 for more typical faces.",
            )
        if self.guidance is not None and not 0.0 <= self.guidance <= MAX_GUIDANCE:
            raise UsageError(
                f"guidance must be a number from 0 to {MAX_GUIDANCE:g}, not {self.guidance}.",
                "1 is no guidance; 2 follows the labels closely.",
                "Give --guidance 2, or leave it out.",
            )
        if self.size is not None and not 2 <= self.size <= MAX_SIZE:
            raise UsageError(
                f"size must be a whole number of pixels from 2 to {MAX_SIZE}, not {self.size}.",
                "It is the height and width of each image.",
                "Give --size 512, or leave it out.",
            )
        Style.of(self.style)
        if self.solver is not None:
            Solution.of(self.solver)

    def check(self, model: Model, side: int) -> None:
        """Raises UsageError for an option that the model does not have. `side` is the model's own, in pixels."""
        if self.size is not None and not isinstance(model, ResolutionFreeModel):
            raise UsageError(
                f"This model draws at {side} px only.",
                "--size is for resolution-free models, such as a CPPN.",
                "Leave out --size; `mien walk --zoom 4` enlarges pixels.",
            )
        if self.solver is not None and not isinstance(model, FlowModel):
            raise UsageError(
                "This model is not a flow.",
                "--solver sets how a flow's ODE is solved.",
                "Leave it out.",
            )
        if self.guidance is not None and not model.label_dim:
            raise UsageError(
                "This model has no labels to follow.",
                "--guidance sets how closely faces follow them.",
                "Leave it out, or use a model with labels, such as a cgan.",
            )
        if self.uncompressed and not (isinstance(model, CompressedModel) and model.compression):
            raise UsageError(
                "This model does not compress its images.",
                "--uncompressed is for a gan that was trained on JPEG files and draws as they are compressed.",
                "Leave it out.",
            )
        style = Style.of(self.style)
        if style is not None:
            if not isinstance(model, StyleModel):
                raise UsageError(
                    "This model has no style stages to mix.",
                    "--style is for models with a style in each stage, such as quick and gan.",
                    "Mix whole faces: mien walk MODEL --seeds 3 42.",
                )
            style.columns(model.style_count)

    @property
    def metadata(self) -> JSON:
        """The options that differ from their defaults: what an image's metadata says of them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def solution(self, model: FlowModel) -> Solution:
        """The ODE solver: this one, or the model's own."""
        return Solution.of(self.solver) if self.solver else model.solution

    def guidance_of(self, model: Model) -> float:
        """The guidance scale: this one, or the model's own."""
        return model.guidance if self.guidance is None else self.guidance

    def followed(self, model: Model, labels: Tensor | None) -> Tensor | None:
        """The labels as the network gets them: under guidance, except for a flow, which is guided at every step."""
        if labels is None or isinstance(model, FlowModel):
            return labels
        return guided(labels, self.guidance_of(model))

    def draw(self, model: Model, z: Tensor, labels: Tensor | None, truncation: float | Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] of latents `[n, *latent_shape]` under label rows `[n, label_dim]`.

        Of a style model also of a latent for each stage, `[n, style_count, *latent_shape]`.
        `truncation` replaces the field: an exported graph has it as an input.
        """
        if self.uncompressed and isinstance(model, CompressedModel):
            model = model.uncompressed()
        psi = self.truncation if truncation is None else truncation
        untruncated = not isinstance(psi, Tensor) and psi == 1.0
        if self.size and isinstance(model, ResolutionFreeModel):
            return model.decode_at(z if untruncated else z * psi, self.size, labels)
        if isinstance(model, FlowModel) and (self.solver or self.guidance is not None):
            noise = z if untruncated else z * psi
            return model.decode_by(noise, self.solution(model), self.guidance_of(model), labels)
        labels = self.followed(model, labels)
        style, staged = Style.of(self.style), z.ndim > 1 + len(model.latent_shape)
        if isinstance(model, StyleModel) and (style is not None or staged):
            latents = list(z.unbind(1)) if staged else [z] * model.style_count
            if style is not None:
                columns = style.columns(model.style_count)
                other = model.prior.draw([style.seed], model.latent_shape).to(z).expand_as(latents[0])
                latents[columns] = [other] * (columns.stop - columns.start)
            return model.decode_stages(latents, psi, labels)
        return model.decode(z, labels) if untruncated else model.decode_truncated(z, psi, labels)
