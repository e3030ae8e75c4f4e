"""The keyword arguments of `mien.train`, typed, so that editors complete them."""

from __future__ import annotations

from typing import Literal, TypedDict

from mien.core.contracts import ModelConfig, RecipeConfig
from mien.core.run import Device, EMAConfig, Precision


class RunOptions(TypedDict, total=False):
    """Fields of a `Run` that `mien.train` sets."""

    # Written from `Run` by `MIEN_WRITE_DOCS=1 pytest tests/test_api_page.py`.
    model: ModelConfig
    recipe: RecipeConfig
    side: int
    """height and width of images in pixels; the pack's side replaces the preset's"""
    batch: int
    """real images in a batch, over all processes"""
    flip: bool
    """flip images horizontally at random"""
    random_crop: float
    """random crops: images are enlarged by this factor first; 1 = off"""
    channels: Literal[1, 3]
    """3 = colour, 1 = grey"""
    conditional: bool
    """condition the model on the labels of the pack"""
    ema: EMAConfig | None
    """moving average of the weights, which is sampled and exported; None = off"""
    seed: int
    """random seed of weights, data order, latents and everything else"""
    precision: Precision
    """auto = bf16 if the device computes it in hardware, else fp32"""
    device: Device
    """auto = a GPU if there is one"""
    images: int
    """train for so many real images"""
    minutes: float | None
    """train for so many minutes instead, over every resume"""
    save_every: int
    """images between checkpoints; 0 = automatic, at most 2% of the time"""
    keep: int
    """number of newest checkpoints to keep, beside the best and the first after 1, 4, 16, 64, ... images"""
    sample_every: int
    """images between sample grids; 0 = automatic, about 2% of the time, more at the start"""
    log_every: int
    """images between lines of metrics.jsonl; 0 = automatic, every second or two"""
    evaluate_every: int
    """images between evaluations against the data, and one at the end; 0 = no evaluation"""
    evaluate_metrics: str
    """metrics of an evaluation, as for `mien evaluate --metrics`"""
    evaluate_samples: int
    """samples that an evaluation draws; part of its scores' names: fid2k_train"""
    evaluate_extractor: str
    """FILE.py:NAME, your own feature extractor instead of Inception"""
    keep_best: str
    """score whose best checkpoint is kept as checkpoints/BEST; else the first metric; convergence = BEGAN's M"""
    patience: int
    """early stopping: evaluations without a better score before the run ends; 0 = off"""
    film: Literal["auto", "gif", "mp4", "webp"]
    """format of the film of the training; auto = mp4, or webp without PyAV"""
    track: Literal["wandb", "mlflow", "trackio"] | None
    """also log to this experiment tracker"""
    loader_threads: int
    """data-loading threads; the result does not depend on them"""
    threads: int
    """CPU threads, which share the rows of a batch where they can; 0 = all cores"""
