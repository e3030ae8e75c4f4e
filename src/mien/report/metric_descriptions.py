"""A one-line description of each number, and whether higher or lower is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Meaning:
    """A description of a number."""

    title: str
    better: Literal["lower", "higher", ""]
    text: str


METRICS = {
    "fid": Meaning(
        "Fréchet distance (FID)",
        "lower",
        "Distance between the distributions of generated and real faces; 0 = equal.",
    ),
    "kid": Meaning(
        "Kernel distance (KID)",
        "lower",
        "As FID, but unbiased, so that it can be compared at small numbers of samples.",
    ),
    "mind": Meaning(
        "Monge distance (MIND)",
        "lower",
        "How far generated faces must be moved to become real ones, over random directions: fooled less than FID.",
    ),
    "sface": Meaning(
        "Fréchet distance of identities (SFace)",
        "lower",
        "As FID, in the embedding of a network that recognises people: hair and background count for nothing.",
    ),
    "precision": Meaning("Precision", "higher", "The share of generated faces that look like some real one: quality."),
    "recall": Meaning("Recall", "higher", "The share of real faces that the model could have generated: variety."),
    "density": Meaning("Density", "higher", "How deep generated faces lie among real ones; about 1 for real faces."),
    "coverage": Meaning(
        "Coverage", "higher", "The share of real faces with a generated one close by: variety that resists outliers."
    ),
    "memorisation": Meaning(
        "Memorisation",
        "lower",
        "Whether generated faces are closer to training faces than unseen real faces are: copies.",
    ),
    "memorisation_pixels": Meaning(
        "Memorisation, pixels", "lower", "The same in pixels: copies that differ in nothing a network would notice."
    ),
    "memorisation_identity": Meaning(
        "Memorisation, identity",
        "lower",
        "The same by who the faces are: people of the training data, generated again.",
    ),
    "diversity": Meaning(
        "Diversity (LPIPS)", "higher", "How different two generated faces look on average; near 0 is collapse."
    ),
    "reconstruction_l1": Meaning(
        "Reconstruction, L1", "lower", "The mean error of a pixel after encoding a face and decoding it again."
    ),
    "reconstruction_lpips": Meaning(
        "Reconstruction, LPIPS", "lower", "How different a face looks after encoding and decoding it again."
    ),
    "classifier": Meaning(
        "Classifier", "higher", "How often the classifier of the labels is right on real faces that it has not seen."
    ),
    "conditions": Meaning(
        "Conditions met",
        "higher",
        "How often a classifier finds the requested labels in the samples; 0.5 is chance.",
    ),
    "condition": Meaning("Condition met", "higher", "The same for one label."),
    "ppl": Meaning("Path length (PPL)", "lower", "How abruptly a face changes along a walk between two seeds."),
}

STATS = {
    "generator_loss": "How far the generator is from fooling the critic; it falls when fakes pass as real.",
    "critic_loss": "How wrong the critic is; near 0 it sees through every fake and teaches little.",
    "critic_fake": "How wrong the critic is on fakes; 0.69 is guessing.",
    "critic_real": "How wrong the critic is on real faces; 0.69 is guessing.",
    "logit_difference": "The critic's mean logit on real faces minus that on fakes.",
    "accuracy": "The share that the critic judges rightly; 0.5 is guessing.",
    "label_loss": "How wrong the critic is about the labels of real faces; 0.69 is guessing.",
    "penalty": "How steep the critic is around its images; the penalty keeps it gentle.",
    "augment_p": "How often images are varied before the critic sees them; it rises while the critic knows them by heart.",
    "velocity_error": "How far the field's direction is from the one to a real face; it falls slowly and never to 0.",
    "loss": "What the training lowers; its height says little, its direction much.",
    "l2_coefficient": "How strongly decay holds the critic back; it grows while the generator loses.",
    "reconstruction": "How far a decoded face is from the face that was encoded.",
    "similarity_error": "How different a decoded face looks from the encoded one, in the critic's features or in pixels.",
    "active_dimensions": "How many numbers of a latent the encoder makes use of.",
    "kl": "How much of each face the encoder keeps beyond the prior, in nats; near 0 the latents say nothing.",
    "real_error": "How badly the autoencoding critic reproduces real faces.",
    "fake_error": "How badly the autoencoding critic reproduces generated faces; gamma is its wanted ratio to that of real ones.",
    "k": "How much weight the critic gives to fakes; pinned at 0 or 1, the balance is lost.",
    "convergence": "One number for quality and balance together; it falls while faces get better.",
    "learning_rate": "The size of a step.",
    "images_per_second": "Real images learned from in a second of training; samples and checkpoints are not counted.",
    "waiting": "The share of time that training waits for images; above 0.3, give the loader more threads.",
}

UNKNOWN = Meaning("", "", "")


def metric_meaning(metric: str) -> Meaning:
    """The meaning of a metric, empty for an unknown one."""
    return METRICS.get(metric, UNKNOWN)


def stat_meaning(name: str) -> str:
    """What a stat of the training means, empty for an unknown one."""
    return STATS.get(name, "")
