"""Faces from a trained model: everything the command line, the metrics and the explorer ask for goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien import presets
from mien.core.contracts import JSON, ImageSpec, Model
from mien.core.device import DeviceContext, mix
from mien.core.families import FlowModel, Invertible, ResolutionFreeModel, StyleModel, VariationalModel
from mien.core.run import Device, Precision
from mien.downloads import hub
from mien.errors import Mismatch, UsageError, did_you_mean
from mien.nn.ode import Solution
from mien.nn.priors import check_walk, positions
from mien.sampling import sidecar
from mien.sampling.address import Address, latent, resolve
from mien.sampling.density import Density, Kind, density_of
from mien.sampling.directions import Directions, Space
from mien.sampling.inversion import Distance, Inversion, Step, absolute, descend
from mien.sampling.styles import Style
from mien.storage import checkpoint

#: A model computes this many faces at a time, the last chunk padded, so that a face never depends on its neighbours: the
#: kernels of a library may round differently for another batch.
CHUNK = 8
LARGEST = 4096  # pixels a side that a scalable model is asked for

Network = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Sampler:
    """A model that is ready to draw."""

    model: Model
    header: JSON  # config, faces, labels, preset, data: what the model says of itself
    engine: DeviceContext
    model_hash: str  # SHA-256 of the file, or "" for a model that is still learning
    size: int | None = None  # pixels a side, for a model that scales; None = those it learned at
    solution: Solution | None = None  # how a flow is followed; None = as its config says
    guidance: float | None = None  # how far a flow leans toward its labels; None = as its config says
    home: Path | None = None  # the folder of its extras; None = it has none
    density: Density | None = None  # what latents are drawn from; None = the model's prior
    truncation: float = 1.0  # how much of the way from the mean face is gone
    style: Style | None = None  # styles of another face that every face gets

    @staticmethod
    def load(
        path: str | Path, *, device: Device = "auto", precision: Precision = "fp32", code: Path | None = None
    ) -> Sampler:
        """The model of a run directory, a checkpoint, a `.safetensors` file or `hf://OWNER/NAME`.

        `code` is the file of a model of your own.

        Raises DataError for a path that holds no model, Untrusted for a damaged file, Mismatch for one that does not fit.
        """
        here = hub.fetch(path) if isinstance(path, str) and path.startswith(hub.SCHEME) else Path(path)
        file = checkpoint.find_model(here)
        tensors, header = checkpoint.read_model(file)
        kinds = presets.kinds_for(header.get("code"), code)
        model = presets.build_model(header, kinds, {name: tensor.shape for name, tensor in tensors.items()})
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise Mismatch(
                f"{file} does not fit its own description.",
                str(error).splitlines()[0],
                "Sample with the version that wrote it.",
            ) from error
        engine = DeviceContext.choose(device, precision)
        engine.place(model)
        hashed = checkpoint.file_hash(file)
        return Sampler(model.eval().requires_grad_(False), header, engine, hashed, home=sidecar.folder_of(file))

    @property
    def faces(self) -> ImageSpec:
        """Side, channels and label width of what is drawn."""
        faces = ImageSpec(**self.header["faces"])
        return replace(faces, side=self.size) if self.size else faces

    def at(self, size: int | None) -> Sampler:
        """The same model drawing at another size. Raises UsageError for one that does not scale, or a size past drawing."""
        if size is None:
            return self
        if not isinstance(self.model, ResolutionFreeModel):
            raise UsageError(
                f"This model draws at {self.faces.side} px alone.",
                "--size is for models that paint a plane, such as a CPPN.",
                "Leave out --size; `mien walk --zoom 4` enlarges pixels.",
            )
        if not 2 <= size <= LARGEST:
            raise UsageError(f"--size {size} is not possible.", "It is in pixels.", f"Choose from 2 to {LARGEST}.")
        return replace(self, size=size)

    def by(self, solver: str | None, guidance: float | None) -> Sampler:
        """The same flow followed in another way: `euler:8`, and guidance of 1 or more. Raises UsageError for other models."""
        if solver is None and guidance is None:
            return self
        if not isinstance(self.model, FlowModel):
            raise UsageError(
                "This model follows no field.", "--solver and --guidance are for flows.", "Leave them out."
            )
        if guidance is not None and not 0.0 <= guidance <= 100.0:
            raise UsageError(
                f"A guidance of {guidance} is not possible.",
                "1 is none; 2 leans well toward the labels.",
                "Give 0 to 100.",
            )
        return replace(self, solution=Solution.of(solver) if solver else None, guidance=guidance)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that a face can be asked for by."""
        return tuple(self.header.get("labels", ()))

    def truncated(self, truncation: float) -> Sampler:
        """The same model with every face moved toward the mean one: 0.7 goes 0.7 of the way from there, 1 is the face itself.

        The mean is the model's own (`Model.decode_truncated`), or that of a fitted density. Raises UsageError for no number.
        """
        if not isfinite(truncation):
            raise UsageError(
                f"A truncation of {truncation} is not possible.",
                "It is a share of the way from the mean face.",
                "Give 1, or a little less.",
            )
        return replace(self, truncation=truncation)

    def styled(self, style: Style | None) -> Sampler:
        """The same model with some styles of another face. Raises UsageError for a model without, or a stage that it lacks."""
        if style is None:
            return self
        if not isinstance(self.model, StyleModel):
            raise UsageError(
                "This model has no styles to mix.",
                "Its stages are not steered one by one.",
                "Mix whole faces: mien walk MODEL --seeds 3 42.",
            )
        style.columns(self.model.style_count)
        return replace(self, style=style)

    def latents(self, seeds: Sequence[int]) -> Tensor:
        """One latent a seed, `[n, *shape]`, on the CPU; those of a fitted density are truncated here, toward its mean."""
        if self.density is not None:
            return torch.lerp(self.density.mean, self.density.draw(seeds), self.truncation)
        return self.model.prior.draw(seeds, self.model.latent_shape)

    @property
    def space(self) -> Space:
        """Where `latents` are: a density is of encodings, which may have a decoder of their own."""
        return "latent" if self.density is None else self.encoding_space

    def fitted(self, kind: Kind = "mixture") -> Sampler:
        """The same model drawing from the density of real faces' encodings that was fitted to it.

        Raises UsageError where none was, Mismatch for one of another model.
        """
        extra = sidecar.read(self.home, kind, kind, self.model_hash) if self.home and self.model_hash else None
        if extra is None:
            raise UsageError(
                f"No {kind} is fitted to this model's encodings.",
                "It is fitted once, to a pack's faces.",
                f"mien sample MODEL --latents fitted --density {kind} --data PACK",
            )
        return replace(self, density=density_of(extra, kind))

    @property
    def label_rows(self) -> Tensor:
        """Label rows of the training data `[k, label_dim]`, k > 0. Raises Mismatch for a header without them."""
        rows: Any = self.header.get("label_rows")
        try:
            known = [[nan if value is None else value for value in row] for row in rows]
            stored = torch.tensor(known, dtype=torch.float32)
            if not stored.numel() or stored.shape[1:] != (self.model.label_dim,):
                raise ValueError(f"label rows of shape {tuple(stored.shape)}")
        except (TypeError, ValueError, RuntimeError) as error:
            raise Mismatch(
                "This model is told labels, and its file has no rows of them.",
                str(error),
                "Use a file written by mien.",
            ) from error
        return stored

    def labels(self, seeds: Sequence[int], asked: Mapping[str, float] | None = None) -> Tensor | None:
        """Label rows `[n, label_dim]`: rows of the training data by seed, overwritten where a label is asked for."""
        if not self.model.label_dim:
            if asked:
                raise UsageError("This model has no labels.", "It was trained without.", "Leave out --label.")
            return None
        stored = self.label_rows
        return self._told(stored[[mix(seed) % len(stored) for seed in seeds]], asked)

    def _told(self, stored: Tensor, asked: Mapping[str, float] | None) -> Tensor:
        """A copy of label rows `[n, label_dim]`, overwritten where a label is asked for."""
        rows = stored.clone()
        for name, value in (asked or {}).items():
            rows[:, self.column(name)] = value
        return rows

    def place(
        self,
        address: Address,
        asked: Mapping[str, float] | None = None,
        amounts: Mapping[str, float] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What a face is drawn from: the latent `[1, *latent_shape]` and the label row `[1, label_dim]` at an address.

        The latent is moved by `amounts` along named directions.
        """
        z = latent(address, self.model.prior, self.model.latent_shape)
        if amounts:
            z = self.edit(z, amounts)
        if not self.model.label_dim:
            return z, self.labels([], asked)
        middle = self._told(self.label_rows.nanmean(0, keepdim=True), asked)  # a latent of no seed has no row

        def of_seeds(seeds: Sequence[int]) -> Tensor:
            rows = self.labels(seeds, asked)
            assert rows is not None
            return rows

        return z, resolve(address, of_seeds, lambda _: middle, torch.lerp)

    @torch.inference_mode()
    def preview(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As `decode`, but only what is asked for is computed: quicker for a face or two, equal within 2/255."""
        return torch.cat(list(self._compute(self.network("latent"), z, labels, padded=False))).clamp(-1.0, 1.0)

    def column(self, name: str) -> int:
        """Which of the labels has this name. Raises UsageError with those that there are."""
        if name not in self.label_names:
            raise UsageError(
                f"There is no label `{name}`.",
                f"The model knows {', '.join(self.label_names) or 'none'}.",
                did_you_mean(name, self.label_names),
            )
        return self.label_names.index(name)

    @torch.inference_mode()
    def decode(self, z: Tensor, labels: Tensor | None = None, space: Space = "latent") -> Tensor:
        """Latents `[n, *latent_shape]` -> images `[n, C, H, W]`, float32 in [-1, 1] on the CPU, equal for equal latents."""
        pieces = [images.clamp(-1.0, 1.0) for images in self._compute(self.network(space), z, labels)]
        return torch.cat(pieces) if pieces else torch.empty(0, self.faces.channels, self.faces.side, self.faces.side)

    def network(self, space: Space = "latent") -> Network:
        """What draws: latents and label rows to images, as this sampler is set."""
        if space == "encoding":
            return self.invertible.decode_encoding
        truncation = self.truncation if self.density is None else 1.0  # a density's latents are truncated already
        return lambda z, labels: self.drawn(z, truncation, labels)

    def drawn(self, z: Tensor, truncation: float | Tensor, labels: Tensor | None) -> Tensor:
        """Images of latents `[n, *latent_shape]` as this sampler is set, but for its truncation."""
        model = self.model
        whole = not isinstance(truncation, Tensor) and truncation == 1.0
        if self.size and isinstance(model, ResolutionFreeModel):
            return model.decode_at(z if whole else z * truncation, self.size, labels)
        if isinstance(model, FlowModel) and (self.solution or self.guidance is not None):
            how, guidance = self.solution or model.solution, model.guidance if self.guidance is None else self.guidance
            return model.decode_by(z if whole else z * truncation, how, guidance, labels)
        if self.style is not None and isinstance(model, StyleModel):
            other = model.prior.draw([self.style.seed], model.latent_shape).to(z).expand_as(z)
            shares = torch.zeros(len(z), model.style_count, device=z.device)
            shares[:, self.style.columns(model.style_count)] = 1.0
            return model.decode_mixed(z, other, shares, truncation, labels)
        return model.decode(z, labels) if whole else model.decode_truncated(z, truncation, labels)

    @torch.inference_mode()
    def stages(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """How a flow comes to its faces: `[n, steps + 1, C, H, W]` in [-1, 1], noise first, what `decode` gives last.

        Adaptively, rows step each for itself: they are looked at at 13 times, and the last agrees within the tolerance.
        Raises UsageError for a model that follows no field.
        """
        model = self.model
        if not isinstance(model, FlowModel):
            raise UsageError(
                "This model follows no field.", "It draws a face in one go.", "Ask a flow for the path to a face."
            )
        how, guidance = self.solution or model.solution, model.guidance if self.guidance is None else self.guidance

        def path(rows: Tensor, told: Tensor | None) -> Tensor:
            noise = rows if self.truncation == 1.0 else rows * self.truncation
            return torch.stack(list(model.stages(noise, how, guidance, told)), 1)

        return torch.cat(list(self._compute(path, z, labels))).clamp(-1.0, 1.0)

    def _compute(self, network: Network, rows: Tensor, labels: Tensor | None, padded: bool = True) -> Iterator[Tensor]:
        """What a network makes of rows, float32 on the CPU, in chunks of one size, unless they need not be `padded` to it."""
        dtype = torch.float64 if self.engine.precision == "fp64" else torch.float32
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            missing = CHUNK - len(some) if padded else 0
            chunk = torch.cat([some, some[-1:].expand(missing, *some.shape[1:])]) if missing else some
            asked = None if labels is None else labels[start : start + CHUNK]
            if asked is not None and missing:
                asked = torch.cat([asked, asked[-1:].expand(missing, -1)])
            here = chunk.to(self.engine.device, dtype)
            told = None if asked is None else asked.to(self.engine.device, dtype)
            with self.engine.autocast():
                made = network(here, told)
            yield made[: len(some)].float().cpu().contiguous()

    def sample(
        self, seeds: Sequence[int], labels: Mapping[str, float] | Tensor | None = None, truncation: float = 1.0
    ) -> Tensor:
        """The faces of seeds, `[n, C, H, W]` in [-1, 1]. Seed 42 is the same face in any batch."""
        rows = labels if isinstance(labels, Tensor) else self.labels(seeds, labels)
        sampler = self if truncation == 1.0 else self.truncated(truncation)
        return sampler.decode(sampler.latents(seeds), rows, self.space)

    def walk(
        self,
        seeds: Sequence[int],
        frames: int,
        labels: Mapping[str, float] | None = None,
        loop: bool = False,
    ) -> Iterator[Tensor]:
        """`frames` images `[C, H, W]` along the prior's own path through seeds; every seed is met exactly, the ends included."""
        check_walk(len(seeds), frames)
        return self.interpolate(self.latents(seeds), frames, self.labels(seeds, labels), loop, self.space)

    def interpolate(
        self, points: Tensor, frames: int, labels: Tensor | None = None, loop: bool = False, space: Space = "latent"
    ) -> Iterator[Tensor]:
        """`frames` images `[C, H, W]` along the prior's own path through points `[k, *shape]`, each of which is met exactly.

        Raises UsageError for fewer than two points, or fewer frames than points.
        """
        check_walk(len(points), frames)
        if loop:
            points, labels = (
                torch.cat([points, points[:1]]),
                labels if labels is None else torch.cat([labels, labels[:1]]),
            )
        for t in positions(len(points), frames, loop):
            leg = min(int(t), len(points) - 2)
            share = t - leg
            z = self.model.prior.path(points[leg : leg + 1], points[leg + 1 : leg + 2], share)
            row = None if labels is None else torch.lerp(labels[leg : leg + 1], labels[leg + 1 : leg + 2], share)
            yield self.decode(z, row, space)[0]

    @property
    def invertible(self) -> Invertible:
        """The model, if it has an encoder. Raises UsageError for one without."""
        if not isinstance(self.model, Invertible):
            raise UsageError(
                "This model has no encoder.",
                f"`{self.header.get('preset', 'it')}` only draws.",
                "Find latents by descent: mien project MODEL PHOTO, or Sampler.invert.",
            )
        return self.model

    @property
    def encoding_space(self) -> Space:
        """Where encodings live: among the latents that `decode` takes, or in a space with a decoder of its own (BEGAN)."""
        return "latent" if type(self.invertible).decode_encoding is Invertible.decode_encoding else "encoding"

    @torch.inference_mode()
    def encode(self, images: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> their encodings `[n, *shape]` on the CPU, in `encoding_space`.

        With standard normal `noise` of that shape, draws of the posterior of a model that has one, in place of its mean.
        """
        model = self.invertible
        if noise is None or not isinstance(model, VariationalModel):
            return torch.cat(list(self._compute(model.encode, images, labels)))

        def both(some: Tensor, told: Tensor | None) -> Tensor:
            found = model.posterior(some, told)
            return torch.stack([found.mean, found.log_variance], 1)

        mean, log_variance = torch.cat(list(self._compute(both, images, labels))).unbind(1)
        return model.latents_of(mean + torch.exp(0.5 * log_variance) * noise)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the model makes of images `[n, C, H, W]` in [-1, 1] by its encoder and the decoder of its encodings."""
        return self.decode(self.encode(images, labels), labels, self.encoding_space)

    def invert(
        self,
        images: Tensor,
        steps: int = 200,
        *,
        seed: int = 0,
        restarts: int = 4,
        lr: float = 0.2,  # of Adam, in the units of the latent
        labels: Tensor | None = None,
        start: Tensor | None = None,
        distance: Distance = absolute,
        on_step: Callable[[Step], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> Inversion:
        """Latents of `decode` whose faces come close to `images` `[n, C, H, W]` in [-1, 1], by descent; equal for equal arguments.

        It begins at the latents of seeds `seed` to `seed + restarts - 1`, or at `start` `[n, *latent_shape]` alone.
        """
        if steps < 1 or restarts < 1:
            raise UsageError("A descent without steps or starts is not possible.", "They count.", "Give 1 or more.")
        count = len(images)
        if start is None:
            start = self.model.prior.draw(range(seed, seed + restarts), self.model.latent_shape)[None].expand(
                count, -1, *[-1] * len(self.model.latent_shape)
            )
        else:
            start = start[:, None]
        told = labels if labels is not None else self.labels([seed] * count)

        def decode(rows: Tensor) -> Tensor:
            row_labels = None if told is None else told.repeat_interleave(len(rows) // count, 0).to(rows)
            with self.engine.autocast():
                return self.model.decode(rows, row_labels)

        dtype = torch.float64 if self.engine.precision == "fp64" else torch.float32
        faces, starts = images.to(self.engine.device), start.to(self.engine.device, dtype)
        return descend(
            decode, self.model.prior, faces, starts,
            steps=steps, lr=lr, distance=distance, on_step=on_step, cancel=cancel,
        )  # fmt: skip

    @cached_property
    def directions(self) -> Directions:
        """The named directions found for this model; none before `mien directions`. Raises Mismatch for another model's."""
        if self.home is None or not self.model_hash:
            return Directions()
        extra = sidecar.read(self.home, "directions", "directions", self.model_hash)
        return Directions.of(extra, {"latent": self.model.latent_shape})

    def edit(self, z: Tensor, amounts: Mapping[str, float], space: Space = "latent") -> Tensor:
        """Latents `[n, *shape]` moved along named directions, in standard deviations. Raises UsageError for an unknown name."""
        return self.directions.move(z, amounts, space)

    def recipe(self, **asked: object) -> JSON:
        """What a picture must carry to be drawn again."""
        how: JSON = {"size": self.size} if self.size else {}
        how |= {"solver": str(self.solution)} if self.solution else {}
        how |= {"guidance": self.guidance} if self.guidance is not None else {}
        how |= {"latents": type(self.density).__name__.lower()} if self.density else {}
        how |= {"truncation": self.truncation} if self.truncation != 1.0 else {}
        how |= {"style": str(self.style)} if self.style else {}
        return {"model": self.model_hash, "preset": self.header.get("preset", ""), "synthetic": True, **how, **asked}
