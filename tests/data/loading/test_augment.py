"""Augmentation: every step against its definition, written again without torch's image functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlfix_train.data.loading import augment as augment_module
from mlfix_train.data.loading.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    augment,
    channel_tensors,
    homographies,
    normalize,
)
from mlfix_train.data.loading.spec import AugmentSpec
from mlfix_train.errors import ConfigError

OFF = {"blur": 0.0, "rotate": 0.0, "zoom": 1.0, "warp": 0.0, "lighting": 0.0}
CORNERS = torch.tensor([[-1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])


def only(**on: float) -> AugmentSpec:
    return AugmentSpec(**{**OFF, **on})


def images(n: int, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8))


def maps(n: int, spec: AugmentSpec) -> torch.Tensor:
    return homographies(n, spec, torch.Generator().manual_seed(3)).double()


def corners(n: int, spec: AugmentSpec) -> torch.Tensor:
    """Where the corners of the output lie in the input, n,2,4."""
    mapped = maps(n, spec) @ CORNERS.double()
    return mapped[:, :2] / mapped[:, 2:]


def test_normalize() -> None:
    batch = images(4)
    wanted = (batch.numpy() / 255.0 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))
    statistics = channel_tensors(IMAGENET_MEAN, IMAGENET_STD, batch.device)
    result = normalize(batch, *statistics)
    assert result.dtype == torch.float32 and np.abs(result.numpy() - wanted).max() < 1e-5
    as_float = batch.float() / 255
    before = as_float.clone()
    assert torch.allclose(normalize(as_float, *statistics), result) and torch.equal(as_float, before)


def test_nothing_on_changes_nothing() -> None:
    batch = images(8)
    assert torch.equal(augment(batch, only(), 0), batch.float() / 255)
    never = AugmentSpec(blur=0, p_affine=0, p_lighting=0)
    result = augment(batch, never, 0)
    wanted = (batch.float() / 255).clamp(0.002, 0.998)
    assert torch.allclose(result, wanted, atol=1e-5)


def test_seeds_and_inputs() -> None:
    batch, spec = images(16), AugmentSpec()
    kept = batch.clone()
    first = augment(batch, spec, 5)
    assert first.dtype == torch.float32 and first.shape == batch.shape
    assert torch.equal(batch, kept), "the input is left alone"
    assert torch.equal(first, augment(batch, spec, 5)) and not torch.equal(first, augment(batch, spec, 6))
    as_float = batch.float() / 255
    before = as_float.clone()
    assert torch.allclose(augment(as_float, spec, 5), first, atol=1e-6)
    assert torch.equal(as_float, before)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment(batch, spec, 5)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"


@pytest.mark.parametrize("seed", range(3))
def test_range(seed: int) -> None:
    batch = images(64, seed=seed)
    batch[:16], batch[16:32] = 0, 255
    for spec in (AugmentSpec(), AugmentSpec(True, 1.0, 180.0, 4.0, 0.4, 0.9, 1.0, 1.0)):
        result = augment(batch, spec, seed)
        assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_images_differ_from_each_other() -> None:
    result = augment(images(1).repeat(32, 1, 1, 1), AugmentSpec(), 0)
    assert len({picture.numpy().tobytes() for picture in result}) > 30


# Blur


def gaussian(taps: int) -> np.ndarray:
    """OpenCV's getGaussianKernel(taps, 0), in 5 places."""
    sigma = {3: 0.8, 5: 1.1}[taps]
    weights = [math.exp(-(k**2) / (2 * sigma**2)) if abs(k) <= taps // 2 else 0.0 for k in range(-2, 3)]
    return np.array(weights) / sum(weights)


def test_blur() -> None:
    n = 2000
    batch = torch.zeros(n, 3, 11, 11)
    batch[:, :, 5, 5] = 1
    result = augment(batch, only(blur=0.25), 1).numpy()[:, :, 3:8, 3:8]
    kinds = {"none": np.eye(1, 25, 12).reshape(5, 5)} | {k: np.outer(gaussian(k), gaussian(k)) for k in (3, 5)}
    counts = {name: (np.abs(result - kernel).max((1, 2, 3)) < 1e-5).sum() for name, kernel in kinds.items()}
    assert sum(counts.values()) == n, "each image is left alone or blurred by one of two kernels"
    for name, share in (("none", 0.75), (3, 0.125), (5, 0.125)):
        assert abs(counts[name] / n - share) < 4.5 * math.sqrt(share * (1 - share) / n), name
    assert torch.equal(augment(batch, only(blur=0.0), 1), batch)


def test_blur_of_pictures_and_their_edges() -> None:
    batch = images(6).float() / 255
    result = augment(batch, only(blur=1.0), 0).double().numpy()
    padded = np.pad(batch.double().numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for i in range(6):
        errors = []
        for taps in (3, 5):
            kernel = np.outer(gaussian(taps), gaussian(taps))
            windows = np.lib.stride_tricks.sliding_window_view(padded[i], (5, 5), axis=(1, 2))
            errors.append(np.abs(result[i] - (windows * kernel).sum((-1, -2))).max())
        assert min(errors) < 1e-5
    flat = torch.full((8, 3, 9, 9), 0.4)
    assert torch.allclose(augment(flat, only(blur=1.0), 0), flat, atol=1e-6)


# Geometry


def warped(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear resampling of C,H,W, mirrored at the border, pixel by pixel."""
    height, width = picture.shape[1:]
    out = np.zeros_like(picture)

    def mirror(value: float, size: int) -> float:
        low, high = -0.5, size - 0.5
        while not low <= value <= high:
            value = 2 * low - value if value < low else 2 * high - value
        return min(max(value, 0.0), size - 1.0)

    for i in range(height):
        for j in range(width):
            u, v, s = matrix @ [(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1]
            x = mirror(((u / s + 1) * width - 1) / 2, width)
            y = mirror(((v / s + 1) * height - 1) / 2, height)
            x0, y0 = int(x), int(y)
            x1, y1, fx, fy = min(x0 + 1, width - 1), min(y0 + 1, height - 1), x - x0, y - y0
            out[:, i, j] = (
                picture[:, y0, x0] * (1 - fx) * (1 - fy)
                + picture[:, y0, x1] * fx * (1 - fy)
                + picture[:, y1, x0] * (1 - fx) * fy
                + picture[:, y1, x1] * fx * fy
            )
    return out


def test_resampling_against_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.Tensor] = []

    def spy(*args: object) -> torch.Tensor:
        used.append(homographies(*args))
        return used[-1]

    monkeypatch.setattr(augment_module, "homographies", spy)
    batch = images(5)[:, :, :10, :]
    result = augment(batch, only(rotate=25, zoom=1.5, warp=0.2), 2).numpy()
    for picture, matrix, got in zip(batch.numpy() / 255.0, used[0].double().numpy(), result, strict=True):
        assert np.abs(warped(picture, matrix) - got).max() < 1e-4


def test_rotation() -> None:
    matrices = maps(4000, AugmentSpec(rotate=10, zoom=1, warp=0))
    angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert torch.allclose(matrices[:, :2, :2] @ matrices[:, :2, :2].mT, torch.eye(2).double(), atol=1e-5)
    assert torch.allclose(torch.det(matrices[:, :2, :2]), torch.ones(4000).double(), atol=1e-5), "no mirror"
    assert matrices[:, 2].unique(dim=0).tolist() == [[0, 0, 1]] and (matrices[:, :2, 2] == 0).all()
    turned = angles != 0
    assert abs(turned.double().mean() - 0.75) < 0.035
    assert angles.abs().max() <= 10.001 and angles.abs().max() > 9.8
    assert abs(angles[turned].mean()) < 0.5 and abs(angles[turned].std() - 20 / math.sqrt(12)) < 0.25, "uniform"


def test_zoom() -> None:
    spec = AugmentSpec(rotate=0, zoom=1.25, warp=0)
    matrices, places = maps(4000, spec), corners(4000, spec)
    scale = 1 / matrices[:, 0, 0]
    assert torch.equal(matrices[:, 0, 0], matrices[:, 1, 1])
    assert scale.min() >= 1 and 1.24 < scale.max() <= 1.2501
    assert abs((scale > 1).double().mean() - 0.75) < 0.035
    assert places.abs().max() <= 1 + 1e-6, "it shows nothing beyond the picture"
    center = matrices[:, :2, 2]
    assert abs(center.mean()) < 0.01 and center.abs().max() > 0.15, "the crop's place is random"


def test_warp_moves_corners_no_further_than_it_says() -> None:
    """'largest perspective shift of a corner, as a share of half the side' (as in fastai's Warp)."""
    spec = AugmentSpec(rotate=0, zoom=1, warp=0.2)
    shift = (corners(4000, spec) - CORNERS[:2].double()).abs()
    moved = (shift > 1e-9).flatten(1).any(1).double().mean()
    assert abs(moved - (1 - 0.25**2)) < 0.03, "each of two directions with its probability"
    assert shift.max() > 0.18
    assert shift.max() <= 0.21, f"a corner moved by {shift.max():.2f} of half the side"


@pytest.mark.parametrize("warp", [0.2, 0.4])
def test_warp_never_turns_a_picture_over(warp: float) -> None:
    """The divisor of a perspective must keep its sign within the picture: beyond its zero everything is mirrored."""
    matrices = maps(4000, AugmentSpec(rotate=0, zoom=1, warp=warp))
    assert ((matrices @ CORNERS.double())[:, 2] > 0).all()


def test_no_flips() -> None:
    """Left stays left and up stays up in every picture, under the published recipe."""
    batch = torch.zeros(400, 3, 24, 24, dtype=torch.uint8)
    batch[:200, :, :, :12] = 255
    batch[200:, :, :12] = 255
    result = augment(batch, AugmentSpec(), 0).mean(1)
    left = result[:200, :, :12].mean((1, 2)) - result[:200, :, 12:].mean((1, 2))
    top = result[200:, :12].mean((1, 2)) - result[200:, 12:].mean((1, 2))
    assert left.min() > 0.2 and top.min() > 0.2


def test_identity_on_average() -> None:
    matrices = maps(4000, AugmentSpec())
    assert (matrices.mean(0)[:2, :2] - torch.diag(matrices.mean(0).diagonal())[:2, :2]).abs().max() < 0.01
    assert abs(matrices[:, 2, :2].mean()) < 0.01


# Light


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_lighting_is_affine_in_logits(strength: float) -> None:
    """fastai: contrast multiplies it by exp(U(log(1-m), -log(1-m))), brightness adds logit(U((1-m)/2, (1+m)/2))."""
    n = 3000
    ramp = torch.linspace(0.1, 0.9, 48).reshape(1, 3, 4, 4).repeat(n, 1, 1, 1)
    result = augment(ramp, only(lighting=strength), 4).double().numpy().reshape(n, -1)
    x, y = logit(ramp[0].double().numpy().ravel()), logit(result)
    slope, shift = np.polynomial.polynomial.polyfit(x, y.T, 1)[::-1]
    assert np.abs(y - (slope[:, None] * x + shift[:, None])).max() < 1e-3
    stretched, shifted = np.abs(slope - 1) > 1e-4, np.abs(shift) > 1e-4
    for share in (stretched.mean(), shifted.mean()):
        assert abs(share - 0.75) < 0.04
    assert abs((stretched & shifted).mean() - 0.75**2) < 0.045, "independent of each other"
    for logs, top in ((np.log(slope[stretched]), -math.log(1 - strength)),):
        assert np.abs(logs).max() <= top + 1e-3 and abs(logs.mean()) < 0.1 * top
        assert abs(logs.std() - 2 * top / math.sqrt(12)) < 0.05 * top
    change = 1 / (1 + np.exp(-shift[shifted]))
    assert change.min() >= (1 - strength) / 2 - 1e-3 and change.max() <= (1 + strength) / 2 + 1e-3
    assert abs(change.mean() - 0.5) < 0.02 and abs(change.std() - strength / math.sqrt(12)) < 0.05 * strength


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blur", 1.1),
        ("blur", -1),
        ("rotate", 181),
        ("zoom", 0.9),
        ("warp", 1),
        ("lighting", 1),
        ("p_affine", 2),
        ("p_lighting", "a"),
    ],
)
def test_errors(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{key}={value} is out of range"):
        AugmentSpec(**{key: value})


def test_crops_and_flips_of_photos_keep_the_published_draws() -> None:
    batch, spec = images(64), AugmentSpec()
    flipped = augment(batch, only(flip=1.0), 3)
    assert torch.allclose(flipped, batch.flip(3).float() / 255, atol=1e-5)
    some = augment(batch, only(flip=0.5), 3)
    mirrored = [(a - b).abs().max() < 1e-4 for a, b in zip(some, flipped, strict=True)]
    assert 20 < sum(mirrored) < 44
    cropped = augment(torch.rand(64, 3, 8, 8).cumsum(3) / 8, only(crop=0.3), 3)
    assert cropped.shape == (64, 3, 8, 8) and torch.isfinite(cropped).all()
    assert torch.equal(augment(batch, spec, 5), augment(batch, AugmentSpec(flip=0.0, crop=1.0), 5))
