"""The report section of models with an encoder: reconstructions, KL per latent dimension, BEGAN's balance."""

from __future__ import annotations

from statistics import fmean

from mien.report.formatting import short
from mien.report.html import Markup, join, tag
from mien.report.pictures import Compressed, pictures
from mien.report.run_reader import RunRecord, is_number
from mien.storage.provenance import Claim

ACTIVE = 0.01  # nats from which a dimension counts as in use, as in training
BARS = 512  # at most
WIDE, HIGH = 640, 120  # of the drawing, in its own units


def reconstructions(record: RunRecord, compressed: Compressed) -> Markup | None:
    """The newest picture of real faces above their reconstructions."""
    picture_list = pictures(record.reconstructions[-1:], compressed, claim=Claim.BESIDE_PHOTOGRAPH)
    if not picture_list:
        return None
    (last,) = picture_list
    text = f"Rows in pairs: real faces, and below them what the model makes of their encodings, after {last.seen:,} images seen."
    image = tag("img", src=last.source, alt=text, width=last.width, height=last.height, loading="lazy")
    return tag("section", tag("h2", "Reconstructions"), tag("p", text, class_="soft"), image, class_="beside")


def kl_section(record: RunRecord) -> Markup | None:
    """KL of each latent dimension, in descending order."""
    values = record.encodings.get("kl")
    if not isinstance(values, list) or not values or not all(is_number(value) for value in values):
        return None
    ordered = sorted((max(0.0, float(value)) for value in values), reverse=True)
    active = sum(value > ACTIVE for value in ordered)
    bars, top = ordered[:BARS], max(ordered[0], 1e-9)
    step = WIDE / len(bars)
    drawn = [
        tag("rect", x=f"{x * step:.2f}", y=f"{HIGH - high:.2f}", width=f"{0.8 * step:.2f}", height=f"{high:.2f}")
        for x, high in enumerate(HIGH * value / top for value in bars)
    ]
    text = (
        f"{active:,} of {len(ordered):,} dimensions carry more than {ACTIVE} nats of a face; {short(sum(ordered))} nats in all, "
        f"{short(ordered[0])} in the busiest. A dimension that carries nothing is noise to the decoder."
    )
    label = f"Nats carried by each dimension, the busiest first, from {short(ordered[0])} to {short(ordered[-1])}"
    svg = tag(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDE} {HIGH}",
        role="img",
        aria_label=label,
        preserveAspectRatio="none",
        class_="bars",
    )
    return tag("section", tag("h2", "What the latents carry"), tag("p", text, class_="soft"), svg)


def balance(record: RunRecord) -> Markup | None:
    """The current k_t and M of a BEGAN."""
    lines = [line for line in record.metrics if is_number(line.get("k")) and is_number(line.get("convergence"))]
    if not lines:
        return None
    k, measure = float(lines[-1]["k"]), [float(line["convergence"]) for line in lines]
    early, late = fmean(measure[: max(1, len(measure) // 10)]), fmean(measure[-max(1, len(measure) // 10) :])
    if k <= 0.0:
        verdict = "at 0: the critic pays no heed to fakes; either learning has just begun, or the balance is lost"
    elif k >= 1.0:
        verdict = "pinned at 1: the balance is lost"
    else:
        verdict = "inside its range: the balance holds"
    place = 8 + (WIDE - 16) * min(max(k, 0.0), 1.0)
    gauge = tag(
        "svg",
        tag("rect", x=8, y=14, width=WIDE - 16, height=6, rx=3, class_="track"),
        tag("circle", cx=f"{place:.1f}", cy=17, r=8),
        viewBox=f"0 0 {WIDE} 34", role="img", aria_label=f"k_t is {short(k)} on a scale from 0 to 1", class_="gauge",
    )  # fmt: skip
    change = f"{short(early)} in the first tenth of the run, {short(late)} in the last"
    words = join("k_t = ", tag("strong", short(k)), f", {verdict}. M, which falls while faces get better: {change}.")
    return tag("section", tag("h2", "The balance"), tag("p", words), gauge)
