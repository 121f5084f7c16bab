"""Pictures that a small network learns in seconds, and the ``mlfix`` command as a process: shared by the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

REPO = Path(__file__).resolve().parents[1]
SHAPES = ("disc", "square", "triangle")
FAST = (
    "model=small",
    "recipe.epochs=2",
    "loader.batch_size=16",
    "logger=none",
    "pixels.size=16",
    "pixels.max_unreadable=0.2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
)
SORTING = (
    "model=sorting_network",
    "model.backbone=mlfix_small",
    "model.input_size=null",
    "model.projector_width=32",
    "recipe.epochs=3",
    "loader.batch_size=16",
    "pixels.size=16",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
)


def draw_shapes(
    root: Path, per_label: int = 24, size: int = 16, seed: int = 0, labels: tuple[str, ...] = SHAPES
) -> Path:
    """Writes ``root/<label>/<n>.png``: a shape of some color on noise, told apart by the shape alone."""
    rng = np.random.default_rng(seed)
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_label):
            image = Image.fromarray(rng.integers(0, 90, (size, size, 3), dtype=np.uint8))
            pen, color = ImageDraw.Draw(image), tuple(rng.integers(140, 256, 3).tolist())
            x, y = rng.integers(1, 4, 2).tolist()
            box = (x, y, x + size - 6, y + size - 6)
            if label == "disc":
                pen.ellipse(box, fill=color)
            elif label == "square":
                pen.rectangle(box, fill=color)
            else:
                pen.polygon([(x, y + size - 6), (x + size - 6, y + size - 6), (x + (size - 6) / 2, y)], fill=color)
            image.save(root / label / f"{number:03d}.png")
    return root


def start(*arguments: object, cwd: Path, **environment: str | None) -> subprocess.Popen[str]:
    """Starts ``mlfix`` as a process of its own; ``None`` takes a variable out of its environment."""
    merged = {**os.environ, "PYTHONPATH": str(REPO), "WANDB_MODE": "offline", **environment}
    env = {name: value for name, value in merged.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-m", "mlfix_train.cli.main", *map(str, arguments)],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 CI may have us ignore it
    )
