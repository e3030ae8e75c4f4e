"""A run directory as training leaves it, drawn and made up: for tests of what reads one."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from mien.report.grid import grid, save_png

PAYLOADS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "</title><script>window.hacked=1</script>",
    "</style><script>window.hacked=1</script>",
    "</pre></code><img src=x onerror=window.hacked=1>",
    "<img src=x onerror=window.hacked=1>",
    "<img/src/onerror=window.hacked=1>",
    "<svg onload=window.hacked=1>",
    "<svg><script>window.hacked=1</script></svg>",
    "<svg/onload=window.hacked=1//",
    "<iframe src=javascript:window.hacked=1>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'>",
    "<body onload=window.hacked=1>",
    "<details open ontoggle=window.hacked=1>",
    "<input autofocus onfocus=window.hacked=1>",
    "<a href=javascript:window.hacked=1>x</a>",
    "<math><mtext><script>window.hacked=1</script>",
    "<template><script>window.hacked=1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=window.hacked=1>'>",
    "<!--><script>window.hacked=1</script>-->",
    "--><script>window.hacked=1</script>",
    "<![CDATA[<script>window.hacked=1</script>]]>",
    '" onmouseover="window.hacked=1',
    "' onmouseover='window.hacked=1",
    '" autofocus onfocus=window.hacked=1 x="',
    '"><script>window.hacked=1</script>',
    "'><script>window.hacked=1</script>",
    "`${window.hacked=1}`",
    '\\"};window.hacked=1;//',
    "\u2028window.hacked=1\u2029",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;",
    "\ud800\x00\x1b[2J\u202eoot",
    "<meta http-equiv=refresh content='0;url=https://example.org/'>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<base href=https://example.org/>",
    "{{constructor.constructor('window.hacked=1')()}}",
)

BATCH = 64


def face(seed: int, share: float, side: int = 64) -> Image.Image:
    """A drawn face that comes out of a blur as `share` goes from 0 to 1."""
    draw = random.Random(seed)
    size = side * 2
    image = Image.new("RGB", (size, size), tuple(draw.randrange(120, 230) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    hair = draw.choice([(40, 28, 24), (92, 58, 32), (190, 150, 80), (120, 120, 126)])
    skin = draw.choice([(241, 205, 175), (214, 165, 122), (168, 112, 76), (104, 66, 46)])
    pen.ellipse((size * 0.2, size * 0.08, size * 0.8, size * 0.8), fill=hair)
    pen.ellipse((size * 0.26, size * 0.2, size * 0.74, size * 0.88), fill=skin)
    for x in (0.41, 0.59):
        pen.ellipse((size * (x - 0.045), size * 0.46, size * (x + 0.045), size * 0.53), fill="white")
        pen.ellipse((size * (x - 0.022), size * 0.47, size * (x + 0.022), size * 0.525), fill=(40, 40, 60))
        if seed % 3 == 0:
            box = (size * (x - 0.08), size * 0.42, size * (x + 0.08), size * 0.57)
            pen.ellipse(box, outline=(30, 30, 34), width=max(1, size // 40))
    pen.arc((size * 0.4, size * 0.58, size * 0.6, size * 0.76), 20, 160, fill=(140, 60, 60), width=max(1, size // 40))
    image = image.filter(ImageFilter.GaussianBlur(size * 0.16 * (1 - share) ** 2))
    noise = Image.effect_noise((size, size), 90).convert("RGB")
    return Image.blend(image, noise, 0.8 * (1 - share) ** 4).resize((side, side), Image.Resampling.BOX)


def metric_lines(lines: int, every: int, seed: int = 0) -> list[dict[str, Any]]:
    """A game of generator and critic that settles, with noise and a few spikes."""
    noise = random.Random(seed)
    found = []
    for index in range(1, lines + 1):
        t = index / lines
        found.append(
            {
                "seen": index * every,
                "seconds": round(index * every / 2400, 3),
                "images_per_second": 2400 + noise.gauss(0, 60),
                "waiting": max(0.0, noise.gauss(0.02, 0.02)),
                "generator_loss": 0.9 + 1.6 * math.exp(-6 * t) + abs(noise.gauss(0, 0.2)) + (index % 97 == 0) * 4,
                "critic_fake": 0.62 - 0.45 * math.exp(-9 * t) + noise.gauss(0, 0.06),
                "critic_real": 0.66 - 0.40 * math.exp(-8 * t) + noise.gauss(0, 0.06),
                "real_accuracy": 0.68 + 0.3 * math.exp(-5 * t) + noise.gauss(0, 0.02),
                "fake_accuracy": 0.70 + 0.28 * math.exp(-6 * t) + noise.gauss(0, 0.02),
            }
        )
    return found


def score_lines(goal: int) -> list[dict[str, Any]]:
    """Three scores, measured four times."""
    protocol = {"extractor": "inception-2015", "hash": "6726825d", "resizer": "bicubic, antialiased", "samples": 10_000}
    found = []
    for step in range(1, 5):
        for metric, name, start, end in (
            ("fid", "fid10k_train", 160.0, 42.0),
            ("kid", "kid10k_train", 0.14, 0.031),
            ("recall", "recall10k_train", 0.02, 0.31),
        ):
            value = end + (start - end) * math.exp(-1.3 * step)
            found.append(
                {
                    "metric": metric,
                    "name": name,
                    "value": value,
                    "low": value * 0.97,
                    "high": value * 1.03,
                    "protocol": protocol,
                    "seen": goal * step // 4,
                }
            )
    return found


def write_run(
    run_dir: Path,
    *,
    lines: int = 400,
    every: int = 640,
    grids: int = 6,
    side: int = 32,
    cells: int = 16,
    state: str = "done",
    scores: bool = True,
    health: bool = True,
    seed: int = 1,
    fingerprint: str = "3f9a2c7b10de",
    **run: Any,
) -> Path:
    """Write a run directory with everything but weights."""
    goal = lines * every
    run_dir.mkdir(parents=True, exist_ok=True)
    write(
        run_dir / "run.json",
        {
            "name": run_dir.name,
            "preset": "torch-gan-2015",
            "side": side,
            "batch": BATCH,
            "seed": seed,
            "images": goal,
            "minutes": None,
            "precision": "auto",
            "model": {"kind": "TorchGenerator", "noise": 512, "widths": [128, 256, 256, 128], "dropout": 0.0},
            "recipe": {
                "kind": "TorchGANConfig",
                "critic": {"kind": "TorchCritic", "widths": [32, 64, 96], "batch_norm": False},
                "balance": "margin",
                "margin": [0.3, 0.7],
                "lr": 0.001,
            },
            "ema": {"half_life": 10_000, "warmup": 0.1},
            "story": "The GAN of the blog post Generating Faces with Torch, as published.",
            **run,
        },
    )
    write(run_dir / "env.json", {"mien": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "device": "cpu", "threads": 2})
    write(
        run_dir / "data.json",
        {
            "source": "drawn faces",
            "fingerprint": fingerprint,
            "count": 8000,
            "labels": ["Eyeglasses", "Beard", "Bald", "Hat", "Smiling"],
        },
    )
    status = {"state": state, "seen": goal, "seconds": goal / 2400, "resumes": 2, "exit_code": 0, "reason": ""}
    write(run_dir / "status.json", status)
    text = "".join(json.dumps(line) + "\n" for line in metric_lines(lines, every, seed))
    (run_dir / "metrics.jsonl").write_text(text)
    for index in range(1, grids + 1):
        sheet = grid([face(number, index / grids, side) for number in range(cells)])
        save_png(sheet, run_dir / "samples" / f"{goal * index // grids:010d}.png", {"seeds": list(range(cells))})
    if scores:
        (run_dir / "eval").mkdir(exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in score_lines(goal))
        (run_dir / "eval" / "scores.jsonl").write_text(text)
    if health:
        write(
            run_dir / "health.json",
            {
                "verdicts": [
                    {
                        "name": "variety",
                        "state": "healthy",
                        "evidence": "Diversity 0.93 of its best; alarm below 0.50.",
                    },
                    {
                        "name": "critic strength",
                        "state": "warning",
                        "evidence": "Critic's loss on fakes below 0.05 for 38% of the last 500 steps; alarm from 50%.",
                        "suggestion": "Try --recipe.balance margin, or a narrower critic.",
                    },
                ]
            },
        )
    return run_dir


def write(path: Path, value: Any) -> None:
    """One JSON file."""
    path.write_text(json.dumps(value))


def hostile_run(run_dir: Path) -> Path:
    """Payloads wherever a run directory holds text."""
    stats = dict.fromkeys(PAYLOADS[:3], 0.5)
    write_run(run_dir, name=" ".join(PAYLOADS), preset=PAYLOADS[22], nested={text: [text] for text in PAYLOADS})
    lines = "".join(json.dumps({"seen": n, "seconds": n, **stats}) + "\n" for n in (64, 128))
    (run_dir / "metrics.jsonl").write_text(lines)
    scores = [{"metric": t, "name": t, "value": 1.0, "seen": n, "protocol": {t: t}} for t in PAYLOADS for n in (1, 2)]
    (run_dir / "eval" / "scores.jsonl").write_text("".join(json.dumps(score) + "\n" for score in scores))
    for name in ("env", "data"):
        (run_dir / f"{name}.json").write_text(json.dumps({text: text for text in PAYLOADS}))
    (run_dir / "status.json").write_text(
        json.dumps({"state": PAYLOADS[0], "reason": " ".join(PAYLOADS), "resumes": PAYLOADS[1]})
    )
    verdicts = [{"name": text, "state": text, "evidence": text, "suggestion": text} for text in PAYLOADS]
    (run_dir / "health.json").write_text(json.dumps({"verdicts": verdicts}))
    return run_dir
