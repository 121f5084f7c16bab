"""Decoding: what every kind of image file looks like in the store, and why a broken one is left out."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin, features

from mlfix_train.data.pixels import formats
from mlfix_train.data.pixels.decode import GREY, ImageFacts, UnreadableImage, decode_image

Picture = Callable[..., Path]
SIZE = 16


@pytest.fixture
def decode(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Saves an image and decodes it again."""

    def through(
        image: Image.Image, name: str = "x.png", size: int = SIZE, aspect: str = "squash", **how: object
    ) -> np.ndarray:
        image.save(tmp_path / name, **how)
        return decode_image(str(tmp_path / name), size, aspect)

    return through


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int, width: int) -> np.ndarray:
    """A smooth picture with an edge and fine texture."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / width * (3 + c) + y / height * (5 - c)) for c in range(3)]
    picture = np.stack(waves, -1)
    picture[(x - width / 2) ** 2 / width**2 + (y - height / 2) ** 2 / height**2 < 0.06] = (220, 30, 40)
    picture += np.random.default_rng(1).normal(0, 12, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def area_average(pixels: np.ndarray, size: int) -> np.ndarray:
    """The mean of the box that each small pixel covers, written without an imaging library."""

    def weights(n: int) -> np.ndarray:
        edges = np.arange(size + 1) * n / size
        cells = np.arange(n)
        cover = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
        cover = np.clip(cover, 0, None)
        return cover / cover.sum(1, keepdims=True)

    height, width = pixels.shape[:2]
    rows = np.tensordot(weights(height), pixels.astype(float), axes=1)
    return np.tensordot(rows, weights(width).T, axes=([1], [0])).transpose(0, 2, 1)


def png(header: bytes, body: bytes) -> bytes:
    """A PNG file written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# Color spaces and depths


def test_rgb_of_the_right_size_is_left_alone(decode: Callable[..., np.ndarray]) -> None:
    pixels = noise(SIZE, SIZE)
    result = decode(Image.fromarray(pixels))
    assert result.dtype == np.uint8 and result.shape == (SIZE, SIZE, 3)
    assert (result == pixels).all()


def test_grey(decode: Callable[..., np.ndarray]) -> None:
    grey = noise(SIZE, SIZE)[..., 0]
    assert (decode(Image.fromarray(grey)) == grey[..., None]).all()
    bits = decode(Image.fromarray(grey).point(lambda v: 255 * (v > 127)).convert("1"))
    assert (bits == np.where(grey > 127, 255, 0)[..., None]).all()


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
def test_transparent_pixels_lie_on_white(decode: Callable[..., np.ndarray], name: str) -> None:
    pixels = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    pixels[:, 4:8] = (200, 0, 0, 128)
    pixels[:, 8:] = (0, 100, 50, 255)
    how = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    result = decode(Image.fromarray(pixels), name, **how).astype(int)
    assert (result[:, :4] == 255).all()
    assert abs(result[:, 4:8] - [227, 127, 127]).max() <= 1
    assert (result[:, 8:] == [0, 100, 50]).all()


def test_grey_with_alpha(decode: Callable[..., np.ndarray]) -> None:
    pixels = np.stack([np.full((SIZE, SIZE), 40), np.zeros((SIZE, SIZE))], -1).astype(np.uint8)
    pixels[8:, :, 1] = 255
    result = decode(Image.fromarray(pixels, "LA"))
    assert (result[:8] == 255).all() and (result[8:] == 40).all()


def test_palette(decode: Callable[..., np.ndarray]) -> None:
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([0, 0, 0, 10, 200, 30, 90, 90, 90])
    image.paste(2, (0, 0, SIZE, 4))
    assert (decode(image)[4:] == [10, 200, 30]).all() and (decode(image)[:4] == 90).all()
    clear = decode(image, transparency=2)
    assert (clear[:4] == 255).all() and (clear[4:] == [10, 200, 30]).all()
    half = decode(image, transparency=bytes([255, 128, 0])).astype(int)
    assert (half[:4] == 255).all() and abs(half[4:] - [132, 227, 142]).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_color(decode: Callable[..., np.ndarray], mode: str) -> None:
    """PNG's tRNS chunk names one color of an RGB or grey picture as transparent."""
    key = (0, 255, 0) if mode == "RGB" else 77
    image = Image.new(mode, (SIZE, SIZE), key)
    image.paste((9, 9, 9) if mode == "RGB" else 9, (0, 0, SIZE, 4))
    result = decode(image, transparency=key)
    assert (result[:4] == 9).all()
    assert (result[4:] == 255).all()


def test_cmyk(decode: Callable[..., np.ndarray]) -> None:
    image = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))
    image.paste((255, 0, 0, 0), (0, 0, SIZE, 8))
    result = decode(image, "x.jpg", quality=100).astype(int)
    assert abs(result[:7] - [0, 255, 255]).max() < 12 and abs(result[9:] - [255, 0, 0]).max() < 12
    assert (decode(image, "x.tif")[9:] == [255, 0, 0]).all()


def test_jpeg_is_near(decode: Callable[..., np.ndarray]) -> None:
    pixels = area_average(scene(64, 64), SIZE).astype(np.uint8)
    assert abs(decode(Image.fromarray(pixels), "x.jpg", quality=98, subsampling=0).astype(int) - pixels).mean() < 2


@pytest.mark.parametrize("top", [65535, 30000, 4095, 200])
@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_samples_are_scaled_by_their_full_range(decode: Callable[..., np.ndarray], top: int, name: str) -> None:
    wide = np.linspace(0, top, SIZE * SIZE).round().astype(np.uint16).reshape(SIZE, SIZE)
    result = decode(Image.fromarray(wide), name).astype(int)
    assert abs(result - (wide / 65535 * 255)[..., None]).max() <= 0.51


def test_16_bit_of_the_other_byte_order(tmp_path: Path) -> None:
    wide = np.linspace(0, 65535, SIZE * SIZE).astype(">u2").reshape(SIZE, SIZE)
    Image.frombytes("I;16B", (SIZE, SIZE), wide.tobytes()).save(tmp_path / "x.tif")
    result = decode_image(str(tmp_path / "x.tif"), SIZE)
    assert abs(result.astype(int) - (wide / 65535.0 * 255)[..., None]).max() <= 1


def test_16_bit_color(tmp_path: Path) -> None:
    """A PNG of 48 bits a pixel, written by hand, since Pillow can't."""
    wide = np.random.default_rng(0).integers(0, 65536, (SIZE, SIZE, 3)).astype(">u2")

    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(png(header, zlib.compress(rows)))
    result = decode_image(str(tmp_path / "x.png"), SIZE)
    assert abs(result.astype(int) - wide / 65535.0 * 255).max() <= 1


def test_first_frame_is_said(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), color) for color in ("red", "lime", "blue")]
    for name in ("x.gif", "x.webp", "x.tif", "x.png"):
        for more in (frames[1:], []):
            frames[0].save(tmp_path / name, save_all=True, append_images=more)
            facts = ImageFacts()
            decode_image(str(tmp_path / name), SIZE, facts=facts)
            assert facts.animated == bool(more), name


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_samples_of_another_white(tmp_path: Path, name: str) -> None:
    wide = np.linspace(0, 5000, SIZE * SIZE).round().astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(wide).save(tmp_path / name)
    result = decode_image(str(tmp_path / name), SIZE, white=4095).astype(int)
    assert abs(result - np.minimum(wide / 4095 * 255, 255)[..., None]).max() <= 0.51


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_channels_of_another_white(tmp_path: Path, channels: int) -> None:
    wide = np.random.default_rng(0).integers(0, 4096, (SIZE, SIZE, channels)).astype(">u2")
    if channels != 3:
        wide[..., -1] = 65535
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    (tmp_path / "x.png").write_bytes(png(header, zlib.compress(rows)))
    result = decode_image(str(tmp_path / "x.png"), SIZE, white=4095)
    shown = wide[..., :1] if channels == 2 else wide[..., :3]
    assert abs(result.astype(int) - shown / 4095.0 * 255).max() <= 0.51


@pytest.mark.parametrize("values", [(-1000, 1000), (0, 2**20)])
def test_32_bit_integers_beyond_16_bits_are_refused(tmp_path: Path, values: tuple[int, int]) -> None:
    wide = np.linspace(*values, SIZE * SIZE).astype(np.int32).reshape(SIZE, SIZE)
    Image.fromarray(wide).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match=f"from {values[0]:,} to {values[1]:,} are beyond"):
        decode_image(str(tmp_path / "x.tif"), SIZE)


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    """A profile that is not of CMYK, or damaged, is of no use: then as without one."""
    image = Image.new("CMYK", (SIZE, SIZE), (200, 0, 0, 0))
    image.save(tmp_path / "plain.tif")
    plain = decode_image(str(tmp_path / "plain.tif"), SIZE)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, srgb[:200], b"garbage"):
        image.save(tmp_path / "x.tif", icc_profile=profile)
        assert (decode_image(str(tmp_path / "x.tif"), SIZE) == plain).all()
    for name in ("x.tif", "x.jpg"):
        image.save(tmp_path / name, icc_profile=cmyk_profile(), **({"quality": 100} if name == "x.jpg" else {}))
        pixels = decode_image(str(tmp_path / name), SIZE).astype(int)
        # The profile says that ink of 200/255 is Lab (L, 0, 0) with L = 100 * (1 - 200/255) = 21.6: grey 53 in sRGB.
        assert abs(pixels - 53).max() <= 3, (name, pixels[0, 0])


def cmyk_profile() -> bytes:
    """A smallest ICC profile of CMYK, written by hand: any ink darkens to Lab grey, L = 100 * (1 - max ink) at corners.

    Lookup of 2 grid points a channel: white where no channel has ink, else black; values between are interpolated.
    """

    def tag(kind: bytes, body: bytes) -> bytes:
        return kind + b"\0\0\0\0" + body

    white, black = (0xFF00, 0x8000, 0x8000), (0x0000, 0x8000, 0x8000)  # Lab of ICC version 2, 16 bits
    grid = [white if not any(corner) else black for corner in np.ndindex(2, 2, 2, 2)]
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    line = struct.pack(">2H", 0, 65535)
    table = tag(b"mft2", struct.pack(">4B", 4, 3, 2, 0) + identity + struct.pack(">2H", 2, 2) + line * 4)
    table += b"".join(struct.pack(">3H", *value) for value in grid) + line * 3
    point = tag(b"XYZ ", struct.pack(">3i", 63190, 65536, 54061))
    text = tag(b"text", b"test\0")
    about = tag(b"desc", struct.pack(">I", 5) + b"test\0" + b"\0" * 78)
    body, tags = b"", []
    for name, content in ((b"desc", about), (b"cprt", text), (b"wtpt", point), (b"A2B0", table)):
        tags.append((name, 128 + 4 + 12 * 4 + len(body), len(content)))
        body += content + b"\0" * (-len(content) % 4)
    index = struct.pack(">I", len(tags)) + b"".join(name + struct.pack(">2I", *place) for name, *place in tags)
    header = struct.pack(">I4sI4s4s4s", 132 + 48 + len(body), b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    return header + index + body


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["iTXt", "zTXt", "iCCP"])
def test_png_with_large_metadata(tmp_path: Path, place: str, kind: str) -> None:
    """Pillow's limits stay as they are; what is beyond them is skipped in our images alone."""
    pixels, large = noise(SIZE, SIZE), zlib.compress(b"x" * 3_000_000)
    body = {
        "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + large,
        "zTXt": b"Comment\0\0" + large,
        "iCCP": b"profile\0\0" + large,
    }[kind]
    chunk = struct.pack(">I", len(body)) + kind.encode() + body + struct.pack(">I", zlib.crc32(kind.encode() + body))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    whole = png(header, zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels)))
    at = 33 if place == "before" else len(whole) - 12
    (tmp_path / "x.png").write_bytes(whole[:at] + chunk + whole[at:])
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    assert (decode_image(str(tmp_path / "x.png"), SIZE) == pixels).all()
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    with pytest.raises(ValueError, match="too large"), Image.open(tmp_path / "x.png") as image:
        image.load()


def test_png_with_much_text_keeps_its_exif(tmp_path: Path) -> None:
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    text.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    exif[0x0112] = 3
    pixels = noise(SIZE, SIZE)
    Image.fromarray(pixels).save(tmp_path / "x.png", pnginfo=text, exif=exif)
    assert (decode_image(str(tmp_path / "x.png"), SIZE) == pixels[::-1, ::-1]).all()


@pytest.mark.skipif("avif" not in features.modules or not features.check("avif"), reason="Pillow has no AVIF here")
def test_avif(decode: Callable[..., np.ndarray]) -> None:
    pixels = area_average(scene(64, 64), SIZE).astype(np.uint8)
    assert ".avif" in formats.image_suffixes()
    result = decode(Image.fromarray(pixels), "x.avif", quality=100, subsampling="4:4:4")
    assert abs(result.astype(int) - pixels).mean() < 3


HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABoAABAAAAAAAAADwAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADc"
    "aXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAA"
    "AwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFw"
    "AAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAARG1kYXQAAAA4"
    "KAGvCchdmNAjm1H/F/f6F6GvFvzQP42p2tP/yYugwTBdkO+g9gt715XMOephLBlSukDDXpsPIIg="
)
"""16 x 16 px, the upper half (200, 40, 40), the lower one (40, 40, 200); made with pillow-heif, which encodes."""


@pytest.mark.parametrize("name", ["x.heic", "x.jpg"])
def test_heic(tmp_path: Path, name: str) -> None:
    """HEIC by its content, whatever it is called."""
    pytest.importorskip("pi_heif", reason="the extra heic is not installed")
    (tmp_path / name).write_bytes(base64.b64decode(HEIC))
    result = decode_image(str(tmp_path / name), 16).astype(int)
    assert abs(result[2, 8] - (200, 40, 40)).max() < 4
    assert abs(result[13, 8] - (40, 40, 200)).max() < 4


def test_first_frame(decode: Callable[..., np.ndarray]) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), color) for color in ("red", "lime", "blue")]
    for name in ("x.gif", "x.webp", "x.tif"):
        how = {"lossless": True} if name == "x.webp" else {}
        assert (decode(frames[0], name, save_all=True, append_images=frames[1:], **how) == [255, 0, 0]).all(), name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
def test_exif_orientation(decode: Callable[..., np.ndarray], orientation: int, name: str) -> None:
    """The stored picture is the upright one turned back, as cameras do."""
    upright = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    how = {"quality": 100, "subsampling": 0} if name == "x.jpg" else {"lossless": True} if name == "x.webp" else {}
    result = decode(image, name, exif=exif, **how)
    assert abs(result.astype(int) - upright).mean() < 12


def test_exif_orientation_of_a_photo_that_is_decoded_small(decode: Callable[..., np.ndarray]) -> None:
    upright = np.zeros((400, 300, 3), dtype=np.uint8)
    upright[:200, :150] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    result = decode(Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1))), "x.jpg", exif=exif)
    assert result[:7, :7].min() > 220 and result[9:].max() < 30 and result[:, 9:].max() < 30


# Shape


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 37), (23, 90), (480, 640)])
@pytest.mark.parametrize("size", [16, 40])
def test_squash_is_anti_aliased(decode: Callable[..., np.ndarray], height: int, width: int, size: int) -> None:
    pixels = scene(height, width)
    result = decode(Image.fromarray(pixels), size=size)
    assert result.shape == (size, size, 3)
    wanted = area_average(pixels, size)
    smooth = max(height, width) / size > 2 and min(height, width) >= size
    assert abs(result - wanted).mean() < (3.5 if smooth else 6)


def test_a_fine_chequerboard_becomes_grey(decode: Callable[..., np.ndarray]) -> None:
    board = (np.indices((160, 160)).sum(0) % 2 * 255).astype(np.uint8)
    for aspect in ("squash", "pad"):
        assert abs(decode(Image.fromarray(board), aspect=aspect).astype(int) - 127).max() <= 3


def test_enlarging_keeps_the_place(decode: Callable[..., np.ndarray]) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2, 2:] = 255
    result = decode(Image.fromarray(pixels))
    assert result[:7, 9:].min() > 200 and result[9:].max() < 60


@pytest.mark.parametrize(("height", "width"), [(64, 32), (32, 64), (10, 5), (33, 47)])
def test_pad_keeps_the_shape(decode: Callable[..., np.ndarray], height: int, width: int) -> None:
    result = decode(Image.new("RGB", (width, height), (250, 0, 0)), aspect="pad")
    red = (result == [250, 0, 0]).all(-1)
    inner_h, inner_w = (round(SIZE * side / max(height, width)) for side in (height, width))
    assert red.sum() == inner_h * inner_w
    assert (result[~red] == GREY).all()
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert len(rows) == inner_h and len(columns) == inner_w
    assert abs(rows[0] - (SIZE - 1 - rows[-1])) <= 1 and abs(columns[0] - (SIZE - 1 - columns[-1])) <= 1, "centered"


@pytest.mark.parametrize("aspect", ["squash", "pad"])
@pytest.mark.parametrize("shape", [(2, 400), (400, 2), (1, 1), (1, 5000)])
def test_extreme_shapes(decode: Callable[..., np.ndarray], aspect: str, shape: tuple[int, int]) -> None:
    result = decode(Image.new("RGB", shape, (250, 0, 0)), aspect=aspect)
    assert result.shape == (SIZE, SIZE, 3)
    assert (result == [250, 0, 0]).all(-1).any()


def test_large_jpegs_are_decoded_small_without_visible_loss(tmp_path: Path) -> None:
    """JPEG's own scaling is used above four times the size; the result is that of the whole picture."""
    for height, width, mode in ((1200, 900, "RGB"), (1200, 900, "L"), (1200, 900, "CMYK"), (165, 190, "RGB")):
        Image.fromarray(scene(height, width)).convert(mode).save(tmp_path / "x.jpg", quality=92)
        whole = np.asarray(Image.open(tmp_path / "x.jpg").convert("RGB"))
        result = decode_image(str(tmp_path / "x.jpg"), 40)
        assert abs(result - area_average(whole, 40)).mean() < 2.5, (height, mode)


def test_gtsrb(gtsrb: Path) -> None:
    for path in sorted(gtsrb.rglob("*.jpg"))[::20]:
        whole = np.asarray(Image.open(path).convert("RGB"))
        assert (decode_image(str(path), whole.shape[0]) == whole).all()
        assert abs(decode_image(str(path), 8) - area_average(whole, 8)).mean() < 6


# Broken files


def reason(path: Path, **how: object) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(str(path), SIZE, **how)
    assert len(str(caught.value)) < 120 and "\n" not in str(caught.value), "a few words"
    return str(caught.value)


def test_missing_and_empty(tmp_path: Path) -> None:
    assert reason(tmp_path / "gone.jpg") == "the file is missing"
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert reason(tmp_path / "empty.jpg") == "the file is empty (0 bytes)"
    assert "directory" in reason(tmp_path).lower()
    (tmp_path / "broken-link.jpg").symlink_to("nowhere")
    assert reason(tmp_path / "broken-link.jpg") == "the file is missing"


def test_text_called_a_picture(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("This is not a picture.\n" * 20)
    assert "cannot identify image file" in reason(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"\0\0\0\x18ftypheic" + b"\0" * 99,
            "its content is HEIC, but cut short or damaged"
            if formats.can_read_heic()
            else "its content is HEIC: pip install 'mlfix-train[heic]' to read HEIC",
        ),
        (b"\r\n<!DOCTYPE html><html>404</html>", "its content is a web page: download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "its content is a Git LFS pointer: run `git lfs pull`"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "its content is metadata of macOS (AppleDouble): remove it"),
        (b"%PDF-1.4", "its content is PDF: render their pages as PNG"),
    ],
)
def test_other_files_called_jpg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str) -> None:
    monkeypatch.setattr("mlfix_train.data.pixels.decode.register_heic", lambda: False)
    (tmp_path / "x.jpg").write_bytes(content)
    assert reason(tmp_path / "x.jpg") == said


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.gif", "x.webp", "x.bmp", "x.tif", "x.ppm"])
def test_cut_short(tmp_path: Path, name: str) -> None:
    Image.fromarray(noise(90, 90)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    decode_image(str(tmp_path / name), SIZE)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:20])
    assert reason(tmp_path / name)


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(png(header, zlib.compress(b"\0" * 2501 * 20_000)))
    said = reason(tmp_path / "bomb.png")
    assert "400 megapixels" in said and "max_megapixels=200" in said
    Image.new("RGB", (120, 100)).save(tmp_path / "small.png")
    assert "max_megapixels=0.01" in reason(tmp_path / "small.png", max_megapixels=0.01)
    assert decode_image(str(tmp_path / "small.png"), SIZE, max_megapixels=0.012).shape == (SIZE, SIZE, 3)


def test_pillows_own_limit_stays_for_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our limit holds for our images, whatever Pillow's is; the user's own ``Image.open`` keeps its guard."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (100, 100)).save(tmp_path / "x.png")
    assert decode_image(str(tmp_path / "x.png"), SIZE).shape == (SIZE, SIZE, 3)
    (tmp_path / "broken.png").write_bytes(b"text")
    assert reason(tmp_path / "broken.png")
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "x.png")


def test_a_header_of_gigapixels_alone(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.bmp")
    body = bytearray((tmp_path / "x.bmp").read_bytes())
    body[18:26] = struct.pack("<ii", 100_000, 100_000)
    (tmp_path / "x.bmp").write_bytes(body)
    assert "10,000 megapixels" in reason(tmp_path / "x.bmp")


def test_float_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "x.tif")
    assert "float" in reason(tmp_path / "x.tif")


def test_broken_exif_does_not_spoil_a_good_picture(tmp_path: Path) -> None:
    """Many cameras and editors write EXIF that is cut short; every viewer shows the picture all the same."""
    for exif in (
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01",
        b"Exif\0\0",
    ):
        Image.fromarray(noise(SIZE, SIZE)).save(tmp_path / "x.jpg", exif=exif)
        assert decode_image(str(tmp_path / "x.jpg"), SIZE).shape == (SIZE, SIZE, 3), exif


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.gif", "x.webp", "x.bmp", "x.tif", "x.ppm"])
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, name: str) -> None:
    """Whatever is in a file, the build of the store goes on: it decodes, or UnreadableImage says why not."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(scene(24, 24))
    ImageDraw.Draw(image).line([(0, 0), (23, 23)], fill="white")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    buffer = io.BytesIO()
    extra = {"exif": exif} if name[2:] in ("jpg", "png", "webp", "tif") else {}
    image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(name[2:], name[2:].upper()), **extra)
    whole = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        reach = len(damaged) if rng.random() < 0.3 else min(len(damaged), 200)
        places = rng.integers(0, reach, rng.integers(1, 8))
        damaged[places] = rng.integers(0, 256, len(places))
        (tmp_path / name).write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                result = decode_image(str(tmp_path / name), SIZE, max_megapixels=1)
            except UnreadableImage:
                continue
        assert result.shape == (SIZE, SIZE, 3) and result.dtype == np.uint8
