"""Whether invisible watermarks hold at 64 px: bits read back after JPEG 75, a resize and a crop.

python benchmarks/watermark.py PHOTOGRAPHS.zip    needs: pip install --no-deps blind-watermark invisible-watermark PyWavelets
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]  # [64, 64, 3]
BITS = [int(bit) for bit in "10110010011101011100101000111010"]


def photographs(path: str, count: int = 48) -> list[Pixels]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".png"))][:count]
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    return [np.asarray(picture.resize((64, 64), Image.Resampling.LANCZOS)) for picture in pictures]


def jpeg(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(pixels: Pixels, side: int = 48) -> Pixels:
    small = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small.resize((64, 64), Image.Resampling.LANCZOS))


def cropped(pixels: Pixels, border: int = 4) -> Pixels:
    return resized(pixels[border:-border, border:-border], 64)


ATTACKS: dict[str, Callable[[Pixels], Pixels]] = {
    "none": lambda pixels: pixels,
    "JPEG 75": jpeg,
    "to 48 px and back": resized,
    "crop by 4 px": cropped,
}


def report(name: str, pictures: list[Pixels], embed: Callable[..., Pixels], extract: Callable[..., list[int]]) -> None:
    noise, read = [], {attack: np.zeros(2) for attack in ATTACKS}
    for pixels in pictures:
        marked = embed(pixels)
        noise.append(10 * np.log10(255**2 / np.mean((marked.astype(float) - pixels) ** 2)))
        for attack, change in ATTACKS.items():
            right = np.equal(extract(change(marked)), BITS[: len(extract(marked))])
            read[attack] += (right.mean(), right.all())
    columns = (f"{k}: {bits / len(pictures):.3f} of bits, {whole:.0f} whole" for k, (bits, whole) in read.items())
    print(f"{name}, PSNR {np.mean(noise):.1f} dB, {len(pictures)} pictures; {'; '.join(columns)}", flush=True)


def main(path: str) -> None:
    import blind_watermark
    from imwatermark import WatermarkEncoder

    blind_watermark.bw_notes.close()
    pictures = photographs(path)
    for count in (4, 8, 16, 32):

        def embed(pixels: Pixels, count: int = count) -> Pixels:
            mark = blind_watermark.WaterMark(password_img=1, password_wm=1)
            mark.read_img(img=pixels[..., ::-1].copy())
            mark.read_wm(np.array(BITS[:count], bool), mode="bit")
            return np.clip(np.round(mark.embed()), 0, 255).astype(np.uint8)[..., ::-1]

        def extract(pixels: Pixels, count: int = count) -> list[int]:
            mark = blind_watermark.WaterMark(password_img=1, password_wm=1)
            found = mark.extract(embed_img=pixels[..., ::-1].astype(float).copy(), wm_shape=(count,), mode="bit")
            return [int(bit > 0.5) for bit in found]

        report(f"blind-watermark, {count} bits", pictures, embed, extract)
    try:
        encoder = WatermarkEncoder()
        encoder.set_watermark("bits", BITS)
        encoder.encode(pictures[0][..., ::-1].copy(), "dwtDct")
    except RuntimeError as error:
        print(f"invisible-watermark: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
