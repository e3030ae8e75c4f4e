"""The networks behind the features, on tensors drawn by the test, against plain versions of the same; resizers against others'."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mien.core.device import has_bf16_units
from mien.downloads import weights
from mien.errors import DeviceError
from mien.metrics.distances import mean_pairwise
from mien.metrics.features import InceptionFeatures, PerceptualFeatures
from mien.metrics.inception import EPSILON, Inception
from mien.metrics.lpips import SCALE, SHIFT, Lpips
from mien.metrics.resize import Resizer, matrix, resize
from tests.conftest import blobs


class Plain:
    """The Inception of 2015 written down plainly, making a random tensor for every name it meets: the order of arithmetic that
    the network's origin has, with nothing folded, stacked or exchanged."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.random = torch.Generator().manual_seed(0)

    def conv(self, x, name, width, kernel, stride=1, padding=0):
        if f"{name}.weight" not in self.tensors:
            fan = x.shape[1] * kernel[0] * kernel[1]
            shape = (width, x.shape[1], *kernel)
            self.tensors[f"{name}.weight"] = torch.randn(shape, generator=self.random) * (2 / fan) ** 0.5
            self.tensors[f"{name}.beta"] = torch.randn(width, generator=self.random) * 0.1
            self.tensors[f"{name}.mean"] = torch.randn(width, generator=self.random) * 0.1
            self.tensors[f"{name}.var"] = torch.rand(width, generator=self.random) + 0.5
        t = self.tensors
        x = F.conv2d(x, t[f"{name}.weight"].double(), stride=stride, padding=padding)
        mean, var, beta = (t[f"{name}.{part}"].double() for part in ("mean", "var", "beta"))
        return F.relu(F.batch_norm(x, mean, var, None, beta, eps=EPSILON))

    def average(self, x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def block(self, x, name, tower, tower_1, pooled, one):
        branches = [self.conv(x, f"{name}.conv", one, (1, 1))]
        for which, widths in (("tower", tower), ("tower_1", tower_1)):
            y = x
            for index, (width, kernel) in enumerate(widths):
                end = f"_{index}" if index else ""
                y = self.conv(y, f"{name}.{which}.conv{end}", width, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
            branches.append(y)
        return torch.cat([*branches, self.conv(self.average(x), f"{name}.tower_2.conv", pooled, (1, 1))], 1)

    def wide(self, x, name, pool):
        a = self.conv(x, f"{name}.tower_conv", 384, (1, 1))
        b = self.conv(self.conv(x, f"{name}.tower_1_conv", 448, (1, 1)), f"{name}.tower_1_conv_1", 384, (3, 3), 1, 1)
        ends = [(f"{name}.{t}_mixed_conv", y) for t, y in (("tower", a), ("tower_1", b))]
        split = [
            self.conv(y, f"{stem}{end}", 384, kernel, 1, padding)
            for stem, y in ends
            for end, kernel, padding in (("", (1, 3), (0, 1)), ("_1", (3, 1), (1, 0)))
        ]
        first = self.conv(x, f"{name}.conv", 320, (1, 1))
        return torch.cat([first, *split, self.conv(pool(x), f"{name}.tower_2_conv", 192, (1, 1))], 1)

    def __call__(self, x):
        x = self.conv(x.double(), "conv", 32, (3, 3), 2)
        x = self.conv(x, "conv_1", 32, (3, 3))
        x = F.max_pool2d(self.conv(x, "conv_2", 64, (3, 3), 1, 1), 3, 2)
        x = F.max_pool2d(self.conv(self.conv(x, "conv_3", 80, (1, 1)), "conv_4", 192, (3, 3)), 3, 2)
        for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
            towers = [(48, (1, 1)), (64, (5, 5))], [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))]
            x = self.block(x, name, *towers, pooled, 64)
        tower = self.conv(self.conv(x, "mixed_3.tower.conv", 64, (1, 1)), "mixed_3.tower.conv_1", 96, (3, 3), 1, 1)
        tower = self.conv(tower, "mixed_3.tower.conv_2", 96, (3, 3), 2)
        x = torch.cat([self.conv(x, "mixed_3.conv", 384, (3, 3), 2), tower, F.max_pool2d(x, 3, 2)], 1)
        for name, width in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
            across, down = (1, 7), (7, 1)
            first = [(width, (1, 1)), (width, across), (192, down)]
            second = [(width, (1, 1)), (width, down), (width, across), (width, down), (192, across)]
            x = self.block(x, name, first, second, 192, 192)
        a = self.conv(self.conv(x, "mixed_8.tower.conv", 192, (1, 1)), "mixed_8.tower.conv_1", 320, (3, 3), 2)
        b = self.conv(x, "mixed_8.tower_1.conv", 192, (1, 1))
        b = self.conv(b, "mixed_8.tower_1.conv_1", 192, (1, 7), 1, (0, 3))
        b = self.conv(b, "mixed_8.tower_1.conv_2", 192, (7, 1), 1, (3, 0))
        b = self.conv(b, "mixed_8.tower_1.conv_3", 192, (3, 3), 2)
        x = torch.cat([a, b, F.max_pool2d(x, 3, 2)], 1)
        x = self.wide(x, "mixed_9", self.average)
        return self.wide(x, "mixed_10", lambda y: F.max_pool2d(y, 3, 1, 1)).mean((2, 3))


@pytest.fixture(scope="module")
def plain():
    network = Plain()
    with torch.inference_mode():
        network(torch.zeros(1, 3, 299, 299))  # makes its tensors
    return network


def test_inception_is_the_plain_network(plain):
    images = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        expected = plain(images)
        prefixed = {f"net.layers.{name}": tensor for name, tensor in plain.tensors.items()}
        found = Inception(prefixed).eval()(images)
    assert expected.shape == found.shape == (1, 2048) and found.dtype == torch.float32
    assert expected.std() > 0.01  # the features say something
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_inception_has_the_known_number_of_convolutions_and_values(plain):
    with torch.inference_mode():
        plain(torch.zeros(1, 3, 299, 299))
    assert sum(name.endswith(".weight") for name in plain.tensors) == 94
    assert round(sum(tensor.numel() for tensor in plain.tensors.values()) / 1e6, 2) == 21.80


def test_inception_in_bf16_rounds_weights_and_no_biases(plain):
    if not has_bf16_units("cpu"):  # torch refuses such a convolution where there is no AVX-512; mien says so before
        with pytest.raises(DeviceError, match="bf16 is not computed here"):
            InceptionFeatures(precision="bf16")
        return
    images = torch.rand(6, 3, 299, 299, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        exact = Inception(plain.tensors).eval()(images)
        network = Inception(plain.tensors).eval().cast(torch.bfloat16)
        rounded = network(images.bfloat16())
    assert network.stem[0].weight.dtype == torch.bfloat16 and network.stem[0].bias.dtype == torch.float32
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("size", [(299, 299), (40, 37), (64, 48)])
def test_resizers_agree_with_the_packages_they_are_named_after(size):
    x = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 255
    for resizer, antialias in (("bilinear", True), ("point", False)):
        theirs = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=antialias)
        torch.testing.assert_close(resize(x, size, resizer), theirs, rtol=0, atol=2e-3)  # of 255
    for resizer, filter_ in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        channels = [[np.asarray(Image.fromarray(c.numpy()).resize(size[::-1], filter_)) for c in image] for image in x]
        theirs = torch.from_numpy(np.stack(channels)).clamp(0, 255)
        torch.testing.assert_close(resize(x, size, resizer), theirs, rtol=0, atol=2e-4)


def test_the_tensorflow_resizer_is_aligned_to_the_corner():
    row = torch.tensor([0.0, 10.0, 20.0, 30.0]).expand(1, 1, 4, 4)
    resized = resize(row, (8, 8), "tf1")[0, 0, 0]
    assert resized.tolist() == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 30.0]


@pytest.mark.parametrize("resizer", get_args(Resizer))
def test_resizers_keep_constants_and_equal_sizes(resizer):
    assert torch.allclose(matrix(17, 40, resizer).sum(1), torch.ones(40), atol=1e-6)
    assert torch.equal(matrix(9, 9, resizer), torch.eye(9))


def random_lpips(network):
    widths = [64, 192, 384, 256, 256] if network == "alex" else [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    kernels = [11, 5, 3, 3, 3] if network == "alex" else [3] * 13
    stem, compared = ("AlexNet_0", range(5)) if network == "alex" else ("VGG16_0", [1, 3, 6, 9, 12])
    random, before, tensors = torch.Generator().manual_seed(0), 3, {}
    for index, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        fan = before * kernel**2
        tensors[f"{stem}.Conv_{index}.kernel"] = (
            torch.randn(kernel, kernel, before, width, generator=random) * (2 / fan) ** 0.5
        )
        tensors[f"{stem}.Conv_{index}.bias"] = torch.randn(width, generator=random) * 0.1
        before = width
    for index, layer in enumerate(compared):
        tensors[f"NetLinLayer_{index}.Conv_0.kernel"] = torch.rand(1, 1, widths[layer], 1, generator=random)
    return tensors


def plain_lpips(tensors, network, a, b):
    """The distance as its paper writes it: unit activations, squared differences, weights, means over places, summed."""
    pools = {1: 3, 2: 3} if network == "alex" else {2: 2, 4: 2, 7: 2, 10: 2}
    compared = [0, 1, 2, 3, 4] if network == "alex" else [1, 3, 6, 9, 12]
    stem, total = ("AlexNet_0" if network == "alex" else "VGG16_0"), 0.0
    shift, scale = torch.tensor(SHIFT)[:, None, None], torch.tensor(SCALE)[:, None, None]
    x, y = (a - shift) / scale, (b - shift) / scale
    for index in range(5 if network == "alex" else 13):
        kernel, bias = tensors[f"{stem}.Conv_{index}.kernel"].permute(3, 2, 0, 1), tensors[f"{stem}.Conv_{index}.bias"]
        stride, padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))[index] if network == "alex" else (1, 1)
        if index in pools:
            x, y = F.max_pool2d(x, pools[index], 2), F.max_pool2d(y, pools[index], 2)
        x, y = (F.relu(F.conv2d(z, kernel, bias, stride, padding)) for z in (x, y))
        if index in compared:
            weights = tensors[f"NetLinLayer_{compared.index(index)}.Conv_0.kernel"].permute(3, 2, 0, 1)
            squared = (F.normalize(x, dim=1, eps=0) - F.normalize(y, dim=1, eps=0)) ** 2
            total = total + F.conv2d(squared, weights).mean((1, 2, 3))
    return total


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_the_squared_distance_of_its_embedding(network):
    tensors = random_lpips(network)
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        network_ = Lpips(tensors, network).eval()
        embedded = (network_(a) - network_(b)).square().sum(1)
        torch.testing.assert_close(embedded, plain_lpips(tensors, network, a, b), rtol=1e-4, atol=1e-6)
        assert network_(a[:, :, :32, :32]).shape == network_(a).shape  # small images are enlarged


def test_mean_over_all_pairs_is_the_mean_over_all_pairs():
    x = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    pairs = [((x[i].astype(np.float64) - x[j]) ** 2).sum() for i in range(30) for j in range(i)]
    estimate = mean_pairwise(x)
    assert estimate.value == pytest.approx(np.mean(pairs), rel=1e-6)
    draws = [mean_pairwise(np.random.default_rng(seed).normal(size=(60, 12))) for seed in range(200)]
    errors = np.mean([(d.high - d.low) / (2 * 1.96) for d in draws])
    assert errors == pytest.approx(np.std([d.value for d in draws]), rel=0.2)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_with_the_published_weights(network):
    """By the paper's formula, written plainly, on drawn faces and the real weights, where they are in the cache."""
    name = f"lpips-{network}"
    if not weights.cached_file(name).is_file():
        pytest.skip(f"`mien data fetch weights:{name}` brings the weights that this compares with")
    faces = blobs(4, 64)
    images = torch.from_numpy(faces).permute(0, 3, 1, 2) / 127.5 - 1.0
    embedded = PerceptualFeatures(network)(faces)
    found = ((embedded[:2] - embedded[2:]) ** 2).sum(1)
    with torch.inference_mode():
        expected = plain_lpips(weights.tensors(name), network, images[:2], images[2:]).flatten().numpy()
    assert found == pytest.approx(expected, rel=1e-4) and found.min() > 0.05
