"""Cropping one photo: what crops show, compared with independently written references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from mlfix_train.data.crops import photo as photo_module
from mlfix_train.data.crops.photo import PhotoJob, crop_photo, cut
from mlfix_train.data.crops.spec import CropSpec

NATIVE = CropSpec(size=None, format="png")


def street(width: int = 400, height: int = 240, seed: int = 0) -> Image.Image:
    """A smooth picture in which every place looks different."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    return rough.resize((width, height), Image.Resampling.BICUBIC)


def photo_job(path: Path, boxes: list, **more: object) -> PhotoJob:
    crops = [f"{place}.png" for place in range(len(boxes))]
    fields = {"width": 0, "height": 0, "panorama": False, "normalized": False, "exif_applied": False}
    return PhotoJob("photo", str(path), **{**fields, **more}, boxes=boxes, wraps=[False] * len(boxes), crops=crops)


def crop(path: Path, boxes: list, out: Path, spec: CropSpec, **more: object) -> tuple[list, list[np.ndarray]]:
    out.mkdir(exist_ok=True)
    found = crop_photo(photo_job(path, boxes, **more), spec, out)
    return found, [np.asarray(Image.open(out / f"{n}.png")) for n, outcome in enumerate(found) if not outcome.problem]


# Pixels


def test_crops_at_their_own_resolution_are_the_pixels(tmp_path: Path) -> None:
    image = street()
    image.save(tmp_path / "a.png")
    boxes = [(10, 20, 50, 90), (0, 0, 400, 240), (399, 239, 400, 240), (9.6, 20.4, 50.4, 89.6), (399.6, 10, 400, 20)]
    _, crops = crop(tmp_path / "a.png", boxes, tmp_path / "o", CropSpec(size=None, format="png", min_side=0.1))
    pixels = np.asarray(image)
    for found, (x0, y0, x1, y1) in zip(crops, [*boxes[:3], boxes[0], (399, 10, 400, 20)], strict=True):
        np.testing.assert_array_equal(found, pixels[y0:y1, x0:x1])


@pytest.mark.parametrize("size", [None, 32])
def test_a_box_across_the_edge_shows_what_it_would_elsewhere(tmp_path: Path, size: int | None) -> None:
    """Turning a panorama by half moves the seam and nothing else."""
    image = street()
    image.save(tmp_path / "a.png")
    turned = Image.fromarray(np.roll(np.asarray(image), 200, axis=1))
    turned.save(tmp_path / "b.png")
    spec = CropSpec(size=size, format="png")
    _, (across,) = crop(tmp_path / "a.png", [(370.25, 50.5, 431.75, 120)], tmp_path / "o", spec, panorama=True)
    _, (whole,) = crop(tmp_path / "b.png", [(170.25, 50.5, 231.75, 120)], tmp_path / "p", spec)
    np.testing.assert_array_equal(across, whole)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2 (R. Keys, 1981)."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample(pixels: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """Reference: each target pixel is a weighted sum, by a kernel as wide as the shrinking asks for."""
    for axis, (low, high) in enumerate(((box[1], box[3]), (box[0], box[2]))):
        inside = np.arange(np.floor(low), np.ceil(high)).astype(int)  # no pixel that the box doesn't touch
        scale = (high - low) / size
        middles = low + (np.arange(size) + 0.5) * scale
        weights = cubic((inside + 0.5 - middles[:, None]) / max(scale, 1.0))
        weights /= weights.sum(1, keepdims=True)
        pixels = np.moveaxis(np.tensordot(weights, np.take(pixels, inside, axis), (1, axis)), 0, axis)
    return pixels.clip(0, 255)


@pytest.mark.parametrize(
    ("box", "tolerance"),
    [((33.4, 21.7, 81.9, 80.2), 1.0), ((40.6, 30.2, 52.1, 44.9), 1.0), ((33.4, 21.7, 201.9, 180.2), 1.0)],
)
def test_resizing_is_anti_aliased_and_exact_to_a_fraction_of_a_pixel(tmp_path: Path, box, tolerance: float) -> None:
    image = street()
    image.save(tmp_path / "a.png")
    _, (found,) = crop(tmp_path / "a.png", [box], tmp_path / "o", CropSpec(size=16, format="png"))
    wanted = resample(np.asarray(image, float), box, 16)
    assert np.abs(found - wanted).max() <= tolerance
    moved = resample(np.asarray(image, float), tuple(edge + 0.4 for edge in box), 16)
    assert np.abs(found - moved).mean() > 1.5 * np.abs(found - wanted).mean()


def test_stripes_finer_than_the_crop_come_out_grey(tmp_path: Path) -> None:
    stripes = np.zeros((240, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "s.png")
    _, (grey,) = crop(tmp_path / "s.png", [(40, 40, 360, 200)], tmp_path / "o", CropSpec(size=16, format="png"))
    assert np.abs(grey.astype(int) - 127).max() < 8


def test_padding_keeps_the_shape(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), (250, 0, 0)).save(tmp_path / "a.png")
    spec = CropSpec(size=32, aspect="pad", format="png")
    _, (wide, narrow) = crop(tmp_path / "a.png", [(0, 0, 100, 50), (0, 0, 10, 100)], tmp_path / "o", spec)
    red = (wide == [250, 0, 0]).all(-1)
    assert red.sum() == 16 * 32 and red[8:24].all()
    assert ((narrow == [250, 0, 0]).all(-1)).sum() == 3 * 32
    assert (wide[0] == 128).all()


def jpeg(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    base = np.asarray(street(1600, 1200), np.int16) + rng.normal(0, 5, (1200, 1600, 3)).astype(np.int16)
    Image.fromarray(base.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=92)
    return tmp_path / "a.jpg"


@pytest.mark.parametrize("aspect", ["squash", "pad"])
def test_reduced_decoding_is_not_seen(tmp_path: Path, aspect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jpeg(tmp_path)
    boxes = [(100, 90, 520, 470), (700, 300, 1500, 1100)]
    asked: list[tuple] = []

    def spy(self, mode, size):  # the photo is decoded at a part of its size
        asked.append(size)
        return JpegImagePlugin_draft(self, mode, size)

    JpegImagePlugin_draft = JpegImagePlugin.JpegImageFile.draft
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
    spec = CropSpec(size=40, aspect=aspect, format="png")
    _, reduced = crop(path, boxes, tmp_path / "o", spec)
    assert asked == [(400, 300)]
    monkeypatch.setattr(photo_module, "decode_reduction", lambda placements, spec: 1)
    _, full = crop(path, boxes, tmp_path / "p", spec)
    for a, b in zip(reduced, full, strict=True):
        error = np.mean((a.astype(float) - b) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 38  # decibels


# Orientation and size


def turned(tmp_path: Path, orientation: int, suffix: str = "jpg") -> Path:
    """A photo of 60 x 40 as stored, red in its stored upper left corner."""
    pixels = np.full((40, 60, 3), 90, np.uint8)
    pixels[:20, :20] = (250, 0, 0)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    how = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    image.save(tmp_path / f"t.{suffix}", exif=exif, **how)
    return tmp_path / f"t.{suffix}"


@pytest.mark.parametrize(
    ("exif", "upright", "stated", "box", "applied"),
    [
        ("auto", False, (60, 40), (0, 0, 20, 20), False),
        ("auto", True, (40, 60), (20, 0, 40, 20), True),  # turned right: the corner is now at the upper right
        ("auto", True, (0, 0), (20, 0, 40, 20), True),
        ("auto", False, (40, 60), (20, 0, 40, 20), True),  # only the turned photo is of the stated size
        ("auto", True, (60, 40), (0, 0, 20, 20), False),
        ("apply", False, (0, 0), (20, 0, 40, 20), True),
        ("ignore", True, (0, 0), (0, 0, 20, 20), False),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_exif_orientation(
    tmp_path: Path, exif: str, upright: bool, stated: tuple, box: tuple, applied: bool, suffix: str
) -> None:
    path = turned(tmp_path, 6, suffix)
    spec = CropSpec(size=None, format="png", exif=exif)
    more = {"exif_applied": upright, "width": stated[0], "height": stated[1]}
    (row,), (found,) = crop(path, [box], tmp_path / "o", spec, **more)
    assert (row.photo_width, row.photo_height) == ((40, 60) if applied else (60, 40))
    assert np.abs(found.astype(int) - [250, 0, 0]).mean() < 12


def test_photos_of_another_size(tmp_path: Path) -> None:
    street().save(tmp_path / "a.png")
    (row,) = crop_photo(photo_job(tmp_path / "a.png", [(0, 0, 9, 9)], width=800, height=480), NATIVE, tmp_path)
    assert row.problem == "size mismatch" and "400 x 240" in row.detail and "800 x 480" in row.detail
    spec = CropSpec(size=None, format="png", rescale=True)
    _, (found,) = crop(tmp_path / "a.png", [(20, 40, 100, 180)], tmp_path / "o", spec, width=800, height=480)
    np.testing.assert_array_equal(found, np.asarray(street())[20:90, 10:50])


def test_fractions_of_the_sides(tmp_path: Path) -> None:
    street().save(tmp_path / "a.png")
    (row,), (found,) = crop(tmp_path / "a.png", [(0.25, 0.5, 0.5, 1.0)], tmp_path / "o", NATIVE, normalized=True)
    assert row[:4] == (100, 120, 200, 240)
    np.testing.assert_array_equal(found, np.asarray(street())[120:240, 100:200])


# What can't be read


def test_photos_that_cant_be_read(tmp_path: Path) -> None:
    path, out = jpeg(tmp_path), tmp_path / "o"
    whole = path.read_bytes()

    def outcome(spec: CropSpec = NATIVE) -> tuple[str, str]:
        first, second = crop(path, [(0, 0, 50, 50), (60, 0, 90, 90)], out, spec)[0]
        assert first == second
        return first.problem, first.detail

    path.write_bytes(whole[: len(whole) // 2])
    problem, detail = outcome()
    assert problem == "photo unreadable" and "truncated" in detail
    assert not list(out.iterdir())
    path.write_bytes(b"")
    assert outcome() == ("photo unreadable", f"{path}: the file is empty (0 bytes)")
    path.write_text("<html>not found</html>")
    assert outcome()[0] == "photo unreadable"
    path.unlink()
    assert outcome() == ("photo missing", str(path))
    path.write_bytes(whole)
    problem, detail = outcome(CropSpec(max_megapixels=1.0))
    assert problem == "photo too large" and "max_megapixels=1" in detail


def test_pillows_limit_holds_for_the_rest_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cropping has a limit of its own; it used to switch Pillow's off for good."""
    path = jpeg(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    outcomes, _ = crop(path, [(0, 0, 50, 50)], tmp_path / "o", NATIVE)
    assert not outcomes[0].problem, "1.9 megapixels are below max_megapixels"
    assert Image.MAX_IMAGE_PIXELS == 100_000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


def test_greys_palettes_and_transparency(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "CMYK", "1", "I;16"):
        image = Image.new("I;16", (40, 30), 40000) if mode == "I;16" else street(40, 32).convert(mode)
        image.save(tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png"))
        path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
        found, (pixels,) = crop(path, [(2, 2, 20, 20)], tmp_path / "o", NATIVE)
        assert not found[0].problem and pixels.shape == (18, 18, 3), mode


def test_sixteen_bit_photos_of_fewer_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 40), 2000, np.uint16)).save(tmp_path / "a.png")
    job = photo_job(tmp_path / "a.png", [(2, 2, 20, 20)])
    for white, level in ((65535, 8), (4095, 125)):
        crop_photo(job, NATIVE, tmp_path, white)
        assert (np.asarray(Image.open(tmp_path / "0.png")) == level).all()


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    street().save(tmp_path / "a.png")
    with pytest.raises(OSError, match=r"/dev/full/0\.png"):
        crop_photo(photo_job(tmp_path / "a.png", [(0, 0, 9, 9)]), NATIVE, Path("/dev/full"))


def test_cutting_never_reads_beyond_the_picture() -> None:
    image = Image.new("RGB", (50, 40), (10, 20, 30))
    for box in ((0, 0, 50, 40), (49.2, 39.1, 50.0, 40.0), (0, 0, 0.4, 0.4), (49.9999999, 0, 50, 40)):
        for spec in (CropSpec(), CropSpec(aspect="pad"), NATIVE):
            assert (np.asarray(cut(image, box, spec)).reshape(-1, 3)[0] != 0).all()


@pytest.mark.parametrize(
    ("orientation", "stated", "applied", "exif", "told"),
    [
        (1, (240, 120), False, "auto", ""),
        (6, (120, 240), False, "auto", "apply"),
        (6, (240, 120), True, "auto", "ignore"),
        (6, (0, 0), True, "auto", "open"),
        (3, (240, 120), False, "auto", "open"),
        (3, (240, 120), False, "apply", ""),
    ],
)
def test_what_the_size_of_a_photo_tells_of_its_exif(
    tmp_path: Path, orientation: int, stated: tuple, applied: bool, exif: str, told: str
) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    street(240, 120).save(tmp_path / "a.jpg", exif=tags)
    size = {"width": stated[0], "height": stated[1], "exif_applied": applied}
    spec = CropSpec(size=None, format="png", exif=exif)
    (outcome,), _ = crop(tmp_path / "a.jpg", [(5, 5, 40, 40)], tmp_path / "o", spec, **size)
    assert outcome.exif == told and not outcome.problem
