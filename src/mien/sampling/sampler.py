"""Images from a trained model: the command line, the metrics and the explorer all draw through this class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mien import presets
from mien.core.contracts import JSON, ImageSpec, Model
from mien.core.device import DeviceContext, mix
from mien.core.families import FlowModel, Invertible, VariationalModel
from mien.core.run import Device, Precision
from mien.errors import Mismatch, UsageError
from mien.nn.priors import check_walk, positions
from mien.sampling import bundled, sidecar
from mien.sampling import labels as label_rows
from mien.sampling.address import Address, latent, resolve
from mien.sampling.chunks import Network, chunk_size, in_chunks
from mien.sampling.density import Density, DensityKind, density_of
from mien.sampling.directions import Directions, Space
from mien.sampling.inversion import Distance, Inversion, Step, absolute, descend
from mien.sampling.options import DrawOptions
from mien.sampling.styles import in_layers
from mien.storage import checkpoint
from mien.storage.provenance import Provenance


@dataclass(frozen=True, eq=False, repr=False)
class Sampler:
    """A model that is ready to draw. Two samplers are equal only if they are the same object."""

    model: Model
    header: JSON  # config, image spec, labels, preset, data: the description that a model file carries
    device_context: DeviceContext
    model_hash: str  # SHA-256 of the file, or "" for a model in training
    options: DrawOptions = DrawOptions()
    extras_folder: Path | None = None  # where directions and fitted priors of this model are; None = nowhere
    density: Density | None = None  # a fitted prior that latents are drawn from; None = the model's own prior

    @staticmethod
    def load(
        path: str | Path, *, device: Device = "auto", precision: Precision = "fp32", code: Path | None = None
    ) -> Sampler:
        """The model of a run directory, a checkpoint, a `.safetensors` file, `hf://OWNER/NAME`, or a bundled model's name.

        `code` is the Python file that defines a model of your own.
        Raises DataError for a path that holds no model, Untrusted for a damaged file, Mismatch for one that does not fit.
        """
        presets.check_code(code)
        file = bundled.model_file(path)
        tensors, header = checkpoint.read_model(file)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        model = presets.build_model(header, presets.kinds_for(header.get("code"), code), shapes)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            why, remedy = str(error).splitlines()[0], "Sample with the version that wrote it."
            raise Mismatch(f"{file} does not fit its own description.", why, remedy) from error
        context = DeviceContext.choose(device, precision)
        context.place(model)
        model_hash, extras = checkpoint.file_hash(file), sidecar.folder_of(file)
        return Sampler(model.eval().requires_grad_(False), header, context, model_hash, extras_folder=extras)

    def __repr__(self) -> str:
        spec, count = self.image_spec, sum(p.numel() for p in self.model.parameters())
        parts = [
            str(self.header.get("preset") or type(self.model).__name__),
            f"{spec.side}x{spec.side} px",
            f"{count / 1e6:.2g}M parameters" if count >= 1e5 else f"{count:,} parameters",
            f"latent {'x'.join(map(str, self.model.latent_shape))}",
            f"{self.device_context.device.type} {self.device_context.precision}",
            *(f"{name}={value}" for name, value in self.options.metadata.items() if name != "size"),
            *([f"sha256 {self.model_hash[:12]}"] if self.model_hash else []),
        ]
        return f"Sampler({', '.join(parts)})"

    def _repr_png_(self) -> bytes:
        """In a notebook: the faces of seeds 0 to 15 in two rows."""
        faces = self.sample(range(16)).add(1).mul(127.5).round().to(torch.uint8)
        rows = faces.reshape(2, 8, *faces.shape[1:]).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # [2 H, 8 W, C]
        made = Provenance(self.metadata(seeds=list(range(16))))
        return made.encode(Image.fromarray(rows.squeeze(2).numpy()), "PNG")

    @property
    def image_spec(self) -> ImageSpec:
        """Side, channels and label width of the images drawn."""
        spec = ImageSpec(**self.header["faces"])
        return replace(spec, side=self.options.size) if self.options.size else spec

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that the model is conditioned on."""
        return tuple(self.header.get("labels", ()))

    def with_options(self, options: DrawOptions) -> Sampler:
        """The same model with other drawing options. Raises UsageError for an option that the model does not have."""
        options.check(self.model, self.header["faces"]["side"])
        return replace(self, options=options)

    def with_fitted_prior(self, kind: DensityKind = "gmm") -> Sampler:
        """The same model with latents from the density that was fitted to its encodings of real faces.

        Raises UsageError if none was fitted, Mismatch for one of another model.
        """
        folder = self.extras_folder
        extra = sidecar.read(folder, kind, kind, self.model_hash) if folder and self.model_hash else None
        if extra is None:
            remedy = f"mien sample MODEL --prior fitted --density {kind} --data PACK"
            what = f"No {kind} is fitted to this model's encodings."
            raise UsageError(what, "It is fitted once, to the faces of a pack.", remedy)
        return replace(self, density=density_of(extra, kind))

    def latents(self, seeds: Sequence[int]) -> Tensor:
        """One latent a seed, `[n, *shape]`, on the CPU; those of a fitted prior are truncated here, toward its mean."""
        if self.density is not None:
            return torch.lerp(self.density.mean, self.density.draw(seeds), self.options.truncation)
        return self.model.prior.draw(seeds, self.model.latent_shape)

    @property
    def space(self) -> Space:
        """The space of `latents`: a fitted prior is of encodings, which may have a decoder of their own."""
        return "latent" if self.density is None else self.encoding_space

    @property
    def label_rows(self) -> Tensor:
        """Label rows of the training data `[k, label_dim]`, k > 0. Raises Mismatch for a header without them."""
        return label_rows.stored_rows(self.header, self.model.label_dim)

    def label_column(self, name: str) -> int:
        """The column of a label. Raises UsageError with the labels that exist."""
        return label_rows.column_of(name, self.label_names)

    def labels(self, seeds: Sequence[int], values: Mapping[str, float] | None = None) -> Tensor | None:
        """Label rows `[n, label_dim]`: rows of the training data, chosen by seed, with the named labels set to `values`."""
        if not self.model.label_dim:
            if values:
                raise UsageError("This model has no labels.", "It was trained without.", "Leave out --label.")
            return None
        return self._labels(seeds, values)

    def _labels(self, seeds: Sequence[int], values: Mapping[str, float] | None) -> Tensor:
        stored = self.label_rows
        return label_rows.with_values(stored[[mix(seed) % len(stored) for seed in seeds]], values, self.label_names)

    def latent_at(
        self,
        address: Address,
        labels: Mapping[str, float] | None = None,
        directions: Mapping[str, float] | None = None,
        layers: str = "",
    ) -> tuple[Tensor, Tensor | None]:
        """The latent `[1, *latent_shape]` at an address, moved as `edit` does, and the label row `[1, label_dim]`."""
        z = latent(address, self.model.prior, self.model.latent_shape)
        if directions or layers:
            z = self.edit(z, directions or {}, layers=layers)
        if not self.model.label_dim:
            return z, self.labels([], labels)
        mean = label_rows.with_values(self.label_rows.nanmean(0, keepdim=True), labels, self.label_names)
        rows = resolve(address, lambda seeds: self._labels(seeds, labels), lambda _: mean, torch.lerp)
        return z, rows  # a latent that is no seed's has the mean row

    @torch.inference_mode()
    def preview(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As `decode`, without padding to a chunk: faster for one or two images, equal within 2/255."""
        return torch.cat(list(self._compute(self._network("latent"), z, labels, padded=False))).clamp(-1.0, 1.0)

    @torch.inference_mode()
    def decode(self, z: Tensor, labels: Tensor | None = None, space: Space = "latent") -> Tensor:
        """Latents `[n, *latent_shape]` -> images `[n, C, H, W]`, float32 in [-1, 1] on the CPU, equal for equal latents."""
        pieces = [images.clamp(-1.0, 1.0) for images in self._compute(self._network(space), z, labels)]
        spec = self.image_spec
        return torch.cat(pieces) if pieces else torch.empty(0, spec.channels, spec.side, spec.side)

    def _network(self, space: Space) -> Network:
        """The function from latents and label rows to images."""
        if space == "encoding":
            return self.invertible.decode_encoding
        truncation = self.options.truncation if self.density is None else 1.0  # `latents` has truncated a density's
        return lambda z, labels: self.options.draw(self.model, z, labels, truncation)

    @torch.inference_mode()
    def trajectory(
        self, z: Tensor, labels: Tensor | None = None, on_step: Callable[[], object] = lambda: None
    ) -> Tensor:
        """A flow's solution over time: `[n, steps + 1, C, H, W]` in [-1, 1], noise first, what `decode` gives last.

        An adaptive solver takes its own steps for each row: 13 equidistant times are shown, and the last agrees within the
        tolerance. `on_step` is called before each step, and may raise to end it. Raises UsageError for a model that is no flow.
        """
        model, options = self.model, self.options
        if not isinstance(model, FlowModel):
            raise UsageError("This model is not a flow.", "It draws an image at once.", "Use a flow for a trajectory.")

        def solve(rows: Tensor, row_labels: Tensor | None) -> Tensor:
            noise = rows if options.truncation == 1.0 else rows * options.truncation
            steps = model.stages(noise, options.solution(model), options.guidance_of(model), row_labels)
            return torch.stack([(stage, on_step())[0] for stage in steps], 1)

        return torch.cat(list(self._compute(solve, z, labels))).clamp(-1.0, 1.0)

    def _compute(self, network: Network, rows: Tensor, labels: Tensor | None, padded: bool = True) -> Iterator[Tensor]:
        return in_chunks(network, self.device_context, rows, labels, chunk_size(self.model), padded)

    def sample(
        self, seeds: Sequence[int], labels: Mapping[str, float] | Tensor | None = None, truncation: float | None = None
    ) -> Tensor:
        """The images of seeds, `[n, C, H, W]` in [-1, 1]. Seed 42 is the same image in any batch."""
        rows = labels if isinstance(labels, Tensor) else self.labels(seeds, labels)
        sampler = self if truncation is None else self.with_options(replace(self.options, truncation=truncation))
        return sampler.decode(sampler.latents(seeds), rows, self.space)

    def walk(
        self,
        seeds: Sequence[int],
        frames: int,
        labels: Mapping[str, float] | None = None,
        loop: bool = False,
    ) -> Iterator[Tensor]:
        """`frames` images `[C, H, W]` along the prior's path through seeds; every seed is met exactly, the ends included."""
        check_walk(len(seeds), frames)
        return self.interpolate(self.latents(seeds), frames, self.labels(seeds, labels), loop, self.space)

    def interpolate(
        self, points: Tensor, frames: int, labels: Tensor | None = None, loop: bool = False, space: Space = "latent",
        chosen: Sequence[int] | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """`frames` images `[C, H, W]`, or those numbered in `chosen`, along the prior's path through points `[k, *shape]`.

        Each point is met exactly. Raises UsageError for fewer than two points, or fewer frames than points.
        """
        check_walk(len(points), frames)
        if loop:
            points = torch.cat([points, points[:1]])
            labels = None if labels is None else torch.cat([labels, labels[:1]])
        for t in positions(len(points), frames, loop, chosen):
            leg = min(int(t), len(points) - 2)
            share = t - leg
            z = self.model.prior.path(points[leg : leg + 1], points[leg + 1 : leg + 2], share)
            row = None if labels is None else torch.lerp(labels[leg : leg + 1], labels[leg + 1 : leg + 2], share)
            yield self.decode(z, row, space)[0]

    @property
    def invertible(self) -> Invertible:
        """The model, if it has an encoder. Raises UsageError for one without."""
        if not isinstance(self.model, Invertible):
            kind = f"`{self.header.get('preset', 'it')}` is a generator only."
            remedy = "Find latents by descent: mien project MODEL PHOTO, or Sampler.invert."
            raise UsageError("This model has no encoder.", kind, remedy)
        return self.model

    @property
    def encoding_space(self) -> Space:
        """The space of encodings: the latents that `decode` takes, or a space with a decoder of its own (BEGAN)."""
        return "latent" if type(self.invertible).decode_encoding is Invertible.decode_encoding else "encoding"

    @torch.inference_mode()
    def encode(self, images: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> their encodings `[n, *shape]` on the CPU, in `encoding_space`.

        With standard normal `noise` of that shape, samples of the posterior where the model has one, instead of its mean.
        """
        model = self.invertible
        if noise is None or not isinstance(model, VariationalModel):
            return torch.cat(list(self._compute(model.encode, images, labels)))

        def mean_and_log_variance(rows: Tensor, row_labels: Tensor | None) -> Tensor:
            posterior = model.posterior(rows, row_labels)
            return torch.stack([posterior.mean, posterior.log_variance], 1)

        mean, log_variance = torch.cat(list(self._compute(mean_and_log_variance, images, labels))).unbind(1)
        return model.latents_of(mean + torch.exp(0.5 * log_variance) * noise)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1], encoded and decoded."""
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
        """Latents whose images come close to `images` `[n, C, H, W]` in [-1, 1], by gradient descent; deterministic.

        It starts at the latents of seeds `seed` to `seed + restarts - 1`, or at `start` `[n, *latent_shape]`.
        """
        if steps < 1 or restarts < 1:
            what = f"steps and restarts must be positive integers, not {steps} and {restarts}."
            raise UsageError(what, "Each start takes that many steps of gradient descent.", "Give 1 or more of each.")
        count = len(images)
        if start is None:
            start = self.model.prior.draw(range(seed, seed + restarts), self.model.latent_shape)[None].expand(
                count, -1, *[-1] * len(self.model.latent_shape)
            )
        else:
            start = start[:, None]
        condition = self.options.followed(self.model, self.labels([seed] * count) if labels is None else labels)
        context = self.device_context

        def decode(rows: Tensor) -> Tensor:
            row_labels = None if condition is None else condition.repeat_interleave(len(rows) // count, 0).to(rows)
            with context.autocast():
                return self.model.decode(rows, row_labels)

        dtype = torch.float64 if context.precision == "fp64" else torch.float32
        faces, starts = images.to(context.device), start.to(context.device, dtype)
        return descend(
            decode, self.model.prior, faces, starts,
            steps=steps, lr=lr, distance=distance, on_step=on_step, cancel=cancel,
        )  # fmt: skip

    @cached_property
    def directions(self) -> Directions:
        """The named directions of this model; none before `mien directions`. Raises Mismatch for another model's."""
        if self.extras_folder is None or not self.model_hash:
            return Directions()
        extra = sidecar.read(self.extras_folder, "directions", "directions", self.model_hash)
        return Directions.of(extra, {"latent": self.model.latent_shape})

    def edit(self, z: Tensor, amounts: Mapping[str, float], space: Space = "latent", layers: str = "") -> Tensor:
        """Latents `[n, *shape]` moved along named directions, in standard deviations. Raises UsageError for an unknown name.

        With `layers` (coarse, middle, fine, or style stages by number, such as 2-3), a latent for each stage, moved in those alone:
        `[n, style_count, *shape]`, which `decode` takes too. Raises UsageError for a model without style stages.
        """
        moved = self.directions.move(z, amounts, space)
        return moved if not layers else in_layers(self.model if space == "latent" else None, z, moved, layers)

    def metadata(self, **more: object) -> JSON:
        """What an image must carry so that it can be drawn again."""
        prior: JSON = {"prior": self.density.kind} if self.density else {}
        model: JSON = {"model": self.model_hash, "preset": self.header.get("preset", ""), "synthetic": True}
        if (precision := self.device_context.precision) != "fp32":
            model["precision"] = precision
        return {**model, **self.options.metadata, **prior, **more}
