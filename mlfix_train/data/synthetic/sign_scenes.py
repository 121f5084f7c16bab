"""The street around a rendered traffic sign, and the camera: occlusion, blur, light and noise."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mlfix_train.data.synthetic.sign_shapes import STYLES, sign_face

DIFFICULTY = 1.0
"""Scales blur, noise, haze and how often a sign is partly hidden. At 1.0 a convnet of four layers, trained for ten
epochs on 150 images of 32 pixels per class, classifies about 91% of held-out images correctly; at 0.9 about 93%."""

Color = tuple[int, ...]
STREETS = ("sky", "foliage", "foliage", "branches", "wall", "road")
COVERS = ("leaves", "branch", "pole", "sticker", "snow")
LEAVES = ((52, 70, 30), (84, 92, 40), (120, 92, 40), (34, 46, 26), (150, 110, 50))
SKIES = ((236, 240, 244), (150, 186, 226), (196, 204, 212), (255, 255, 255), (110, 140, 180))
WALLS = ((150, 78, 58), (196, 184, 164), (120, 112, 104), (220, 214, 200), (92, 70, 58))
PAINTS = ((200, 30, 40), (30, 80, 160), (235, 235, 230), (60, 62, 64), (240, 190, 40), (150, 150, 150))


def photograph_sign(rng: np.random.Generator, name: str, size: int, difficulty: float = DIFFICULTY) -> np.ndarray:
    """Returns one image of the sign ``name``, uint8 ``(size, size, 3)``; all randomness is drawn from ``rng``.

    ``difficulty`` (0 to 2) scales blur, noise, haze, darkness and how often a part is hidden.
    """
    scene = _background(rng, size).resize((2 * size, 2 * size), Image.Resampling.BILINEAR)
    pose = _pose(rng, 2 * size)
    _paint_neighbours(rng, scene, pose)
    _paste_sign(rng, scene, name, pose, difficulty)
    if rng.random() < 0.36 * difficulty:
        _occlude(rng, scene, pose)
    return _photograph(rng, scene, size, difficulty)


@lru_cache(maxsize=64)
def _weights(size: int, cells: int) -> np.ndarray:
    """Returns the weights, shape (size, cells), that interpolate ``cells`` values smoothly over ``size`` pixels."""
    gap = np.abs(np.linspace(0, cells - 1, size)[:, None] - np.arange(cells)).clip(0, 1)
    return np.asarray(1 - gap * gap * (3 - 2 * gap))


def _noise(rng: np.random.Generator, size: int, *cells: int) -> np.ndarray:
    """Returns smooth noise from 0 to 1, shape (size, size, 1), the mean of layers with ``cells`` bumps along a side."""
    layers = [_weights(size, n) @ rng.random((n, n)) @ _weights(size, n).T for n in cells]
    return np.asarray((np.add.reduce(layers)[..., None] / len(cells)).astype(np.float32))


def _mix(low: Color | np.ndarray, high: Color, amount: np.ndarray) -> np.ndarray:
    """Returns ``low`` where ``amount`` is 0 and ``high`` where it is 1, shape (size, size, 3)."""
    return np.asarray(low + np.clip(amount, 0, 1) * np.subtract(high, low, dtype=np.float32))


def _pick(rng: np.random.Generator, colors: Sequence[Color], spread: float = 18) -> Color:
    """Returns one of ``colors``, shifted at random."""
    shifts = rng.normal(0, spread, 3).tolist()
    color = colors[int(rng.integers(len(colors)))]
    return tuple(min(255, max(0, int(value + shift))) for value, shift in zip(color, shifts, strict=True))


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Returns a street without the sign: sky, foliage, branches, a wall or asphalt, with a few blurred shapes."""
    kind = STREETS[int(rng.integers(len(STREETS)))]
    texture = _noise(rng, size, 4, 11, 3 * size // 4)
    if kind == "foliage":
        pixels = _mix(_pick(rng, LEAVES[3:4]), _pick(rng, LEAVES), (texture - 0.3) * 2.4)
    elif kind == "wall":
        pixels = np.array(_pick(rng, WALLS), np.float32) * (0.7 + 0.6 * texture)
    else:
        rows = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
        pixels = _mix(_pick(rng, SKIES), _pick(rng, SKIES), rows * 0.6 + 0.5 * _noise(rng, size, 3))
    if kind == "branches":
        pixels = _mix(pixels, _pick(rng, LEAVES[3:4]), (texture - rng.uniform(0.4, 0.6)) * 9)
    elif kind == "road":
        pixels = np.where(rows > rng.uniform(0.3, 0.8), _mix((60, 60, 62), (150, 148, 144), texture), pixels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    _clutter(rng, image, kind == "wall")
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 2.0) * size / 64))


def _clutter(rng: np.random.Generator, image: Image.Image, windows: bool) -> None:
    """Paints windows on a wall, and trunks, cars and other plain shapes anywhere."""
    draw, size = ImageDraw.Draw(image), image.width
    if windows:
        step, color = size * rng.uniform(0.25, 0.6), _pick(rng, (*SKIES[1:2], (40, 44, 50), (70, 76, 86)))
        left, top = rng.uniform(-0.4, 0.2, 2) * size
        for column in range(5):
            for row in range(5):
                x, y = left + column * step, top + row * step
                draw.rectangle([x, y, x + step * 0.45, y + step * 0.6], fill=color)
    for _ in range(rng.integers(0, 4)):
        x, y, width, height = rng.uniform([-0.2, -0.2, 0.05, 0.05], [1, 1, 0.5, 0.5]) * size
        if rng.random() < 0.3:
            draw.line([x, -4, x + rng.normal(0, 0.2) * size, size + 4], _pick(rng, WALLS), round(width * 0.3) + 1)
        elif rng.random() < 0.5:
            draw.ellipse([x, y, x + width, y + height], _pick(rng, (*LEAVES, *SKIES)))
        else:
            draw.rectangle([x, y, x + width, y + height], _pick(rng, (*WALLS, *PAINTS)))


def _pose(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws the pose of a sign, rotated about its three axes and seen from close up.

    It is the homography (3, 3) from the face (x and y from -1 to 1) to pixels of an image with sides of ``size``.
    """
    roll, yaw, pitch = rng.normal(0, [0.07, 0.32, 0.18]).clip([-0.2, -0.8, -0.45], [0.2, 0.8, 0.45]).tolist()
    # Columns: directions of the face's x and y axes.
    axes = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    depth = axes[0] * math.sin(yaw) * math.cos(pitch) + axes[1] * math.sin(pitch)
    down = axes[1] * math.cos(pitch) - axes[0] * math.sin(yaw) * math.sin(pitch)
    depth /= rng.uniform(4, 9)
    x, y = (size * (0.5 + rng.normal(0, 0.04, 2).clip(-0.1, 0.1))).tolist()
    scale = size * rng.uniform(0.29, 0.43)
    across = axes[0] * math.cos(yaw) * scale + x * depth
    return np.array([[*across, x], [*(down * scale + y * depth), y], [*depth, 1]])


def _extent(pose: np.ndarray) -> tuple[float, float, float]:
    """Returns the middle of the sign (x, y) and half its height, in pixels."""
    return float(pose[0, 2]), float(pose[1, 2]), math.hypot(pose[1, 0], pose[1, 1])


def _paint_neighbours(rng: np.random.Generator, scene: Image.Image, pose: np.ndarray) -> None:
    """Paints the pole, and sometimes a part of another sign above or below."""
    draw, size = ImageDraw.Draw(scene), scene.width
    x, y, reach = _extent(pose)
    if rng.random() < 0.7:
        grey = int(rng.integers(60, 190))
        lean = rng.normal(0, 0.03) * size
        draw.line([x, y, x + lean, size + 4], (grey, grey, grey + 4), max(2, round(size * rng.uniform(0.03, 0.08))))
    chance = rng.random()
    if chance < 0.3:
        middle = y + reach * rng.uniform(1.75, 2.1) * (1 if chance < 0.2 else -1)
        if rng.random() < 0.5:
            draw.rectangle([x - reach, middle - reach * 0.7, x + reach, middle + reach * 0.7], PAINTS[2])
            return
        for radius, color in ((reach, _pick(rng, PAINTS)), (reach * 0.75, PAINTS[2])):
            draw.ellipse([x - radius, middle - radius, x + radius, middle + radius], color)


def _paste_sign(rng: np.random.Generator, scene: Image.Image, name: str, pose: np.ndarray, difficulty: float) -> None:
    """Pastes the weathered, lit face of a sign in its pose."""
    size = scene.width
    face = sign_face(name, int(rng.integers(len(STYLES))), size * 5 // 4)
    half = face.width / 2
    back = np.array([[half, 0, half], [0, half, half], [0, 0, 1]]) @ np.linalg.inv(pose)  # from the image to the face
    numbers = (back / back[2, 2]).ravel()[:8].tolist()
    view = face.transform(scene.size, Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BILINEAR)
    light, fade = math.exp(rng.normal(-0.05, 0.22)), rng.uniform(0, 0.36) * difficulty
    dirt = rng.normal(128, 20, 3).astype(np.float32)
    pixels = np.asarray(view, np.float32)
    colors = (pixels[..., :3] * (1 - fade) + dirt * fade) * light
    scene.paste(Image.fromarray(colors.clip(0, 255).astype(np.uint8)), (0, 0), view.getchannel("A"))


def _occlude(rng: np.random.Generator, scene: Image.Image, pose: np.ndarray) -> None:
    """Hides part of the sign behind leaves, a branch, a pole, a sticker or snow."""
    draw = ImageDraw.Draw(scene)
    kind = COVERS[int(rng.integers(len(COVERS)))]
    x, y, reach = _extent(pose)
    top = y - reach
    turn, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.9) * reach
    x, y = x + away * math.cos(turn), y + away * math.sin(turn)
    if kind == "leaves":
        hue = _pick(rng, LEAVES)
        for dx, dy, size in (rng.normal(0, 0.3, (16, 3)) * [1, 1, 0.15] + [0, 0, 0.12]).tolist():
            left, top, half = x + dx * reach, y + dy * reach, max(1.0, size * reach)
            draw.ellipse([left - half, top - half * 0.7, left + half, top + half * 0.7], _pick(rng, [hue], 12))
    elif kind == "branch":
        for _ in range(3):
            ends = rng.normal(0, 0.5, (2, 2)) * reach + [[x - 2 * reach, y], [x + 2 * reach, y]]
            draw.line([tuple(end) for end in ends.tolist()], _pick(rng, LEAVES[3:4]), max(1, round(reach * 0.1)))
    elif kind == "pole":
        foot = x + rng.normal(0, 0.1) * reach
        draw.line([x, -4, foot, 3 * scene.height], _pick(rng, PAINTS[3:]), round(reach * 0.28))
    elif kind == "sticker":
        width, height = rng.uniform(0.2, 0.5, 2) * reach
        draw.rectangle([x - width / 2, y - height / 2, x + width / 2, y + height / 2], _pick(rng, PAINTS))
    else:
        depth = rng.uniform(0.3, 0.75) * reach
        for dx in np.linspace(-1, 1, 9):
            low = top + depth * rng.uniform(0.6, 1.0)
            draw.ellipse([x + (dx - 0.3) * reach, top - reach, x + (dx + 0.3) * reach, low], _pick(rng, PAINTS[2:3], 5))


def _photograph(rng: np.random.Generator, scene: Image.Image, size: int, difficulty: float) -> np.ndarray:
    """Returns the scene as a camera in a moving car sees it: blurred, reduced to ``size``, lit and noisy."""
    unit = scene.width / 64
    distance = rng.beta(1.3, 2.6)  # 0 near to 1 far: a far sign is both blurred and coarse
    scene = scene.filter(ImageFilter.GaussianBlur((0.4 + 3.1 * distance * difficulty * rng.uniform(0.5, 1)) * unit))
    if rng.random() < 0.3 * difficulty:
        scene = _motion_blur(rng, scene, unit, difficulty)
    if rng.random() < 0.42 * difficulty:
        coarse = max(6, round(size * (0.95 - 0.5 * distance)))
        scene = scene.resize((coarse, coarse), Image.Resampling.BOX)
    image = scene.resize((size, size), Image.Resampling.BOX if scene.width > size else Image.Resampling.BICUBIC)
    pixels = _light(rng, np.asarray(image, np.float32) / 255, difficulty)
    noise = rng.normal(0, 1, pixels.shape).astype(np.float32)
    noise *= np.sqrt(pixels.clip(0, 1) * 0.001 + 0.00003) * (rng.uniform(0.24, 1.8) * difficulty)
    return (np.clip(pixels + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


def _motion_blur(rng: np.random.Generator, scene: Image.Image, unit: float, difficulty: float) -> Image.Image:
    pixels = np.asarray(scene, np.uint16)
    turn, length = rng.normal(0, 0.6), rng.uniform(2.4, 8.4) * difficulty * unit
    steps = [(math.sin(turn) * length * step, math.cos(turn) * length * step) for step in np.linspace(-0.5, 0.5, 7)]
    shifted = [np.roll(pixels, (round(dy), round(dx)), axis=(0, 1)) for dy, dx in steps]
    return Image.fromarray((np.add.reduce(shifted) // len(steps)).astype(np.uint8))


def _light(rng: np.random.Generator, pixels: np.ndarray, difficulty: float) -> np.ndarray:
    """Returns ``pixels`` (0 to 1, ``(size, size, 3)``) in daylight; some exceed 1."""
    size = pixels.shape[0]
    across = np.linspace(-1, 1, size, dtype=np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    slope = across[None, :] * math.cos(turn) + across[:, None] * math.sin(turn)
    if rng.random() < 0.2:  # the edge of a shadow, otherwise a slow gradient
        dark = rng.uniform(0.4, 0.8)
        shade = dark + (1 - dark) * np.clip((slope - rng.uniform(-0.6, 0.6)) * 5, 0, 1)
    else:
        shade = 1 + slope * rng.uniform(0, 0.3)
    shade = shade * (1 - rng.uniform(0, 0.2) * (across[None, :] ** 2 + across[:, None] ** 2))
    cast = np.exp(rng.normal(0, 0.08, 3))
    gain = min(1.9, math.exp(rng.normal(-0.5, 0.65) * min(difficulty, 1.0)))
    haze = rng.uniform(0, 0.38) ** 2 * 2 * difficulty
    pixels = pixels * (1 - haze) + haze * 0.6
    return (pixels * shade[..., None] * (cast * gain)).astype(np.float32)
