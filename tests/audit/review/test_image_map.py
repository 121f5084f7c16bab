"""The map of all images: computed once, kept until the embeddings change, stopped and resumed; what a lasso holds."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlfix_train.audit.review import image_map
from mlfix_train.audit.review.image_map import NOWHERE, SIDE, ImageMap, inside_polygon, to_whole_numbers
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.similarity.order_files import KeptEmbeddings

FAKE = """
import json, sys, time
import numpy as np
settings = json.load(sys.stdin)
print(1, 4, flush=True)
{wait}
places = np.load(settings["embeddings"])[:, :2]
np.savez(open(settings["out"], "wb"), key=settings["key"], places=places)
"""
"""Takes the first two dimensions for the places."""


def wait_for(one: ImageMap, state: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (found := one.response())["state"] == state:
            return found
        time.sleep(0.02)
    raise AssertionError(f"never {state}: {found}")


@pytest.fixture
def kept(tmp_path: Path) -> KeptEmbeddings:
    places = np.random.default_rng(0).random((30, 5)).astype(np.float32)
    np.save(tmp_path / "embeddings.npy", places)
    return KeptEmbeddings(tmp_path / "embeddings.npy", [f"{i}.jpg" for i in range(30)], "pixels")


def make(kept: KeptEmbeddings | None, folder: Path) -> ImageMap:
    ids = np.array([f"{i}.jpg" for i in range(31)], object)  # the last has no embedding
    return ImageMap(ids, lambda: kept, folder / "map.npz")


def test_a_map_is_computed_once_and_kept(tmp_path: Path, kept: KeptEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_map, "COMMAND", FAKE.format(wait=""))
    one = make(kept, tmp_path)
    assert one.response() == {"state": "absent"}
    one.start()
    found = wait_for(one, "ready")
    points = np.frombuffer(base64.b64decode(found["points"]), np.uint16).reshape(-1, 2)
    np.testing.assert_array_equal(points[:30], to_whole_numbers(np.load(kept.path)[:, :2]))
    assert points[30].tolist() == [NOWHERE, NOWHERE]
    assert make(kept, tmp_path).response() == found, "kept"
    assert one.response(found["key"]) == {"state": "ready", "key": found["key"]}, "the page has the points"
    corners = [(0, 0), (SIDE // 2, 0), (SIDE // 2, SIDE + 1), (0, SIDE + 1)]
    area = f"{found['key'][:8]}:" + " ".join(f"{x},{y}" for x, y in corners)
    np.testing.assert_array_equal(one.inside(area), points[:, 0] < SIDE // 2)
    with pytest.raises(RequestError, match="no longer there"):
        one.inside("00000000" + area[8:])
    np.save(kept.path, np.ones((30, 6), np.float32))
    assert make(kept, tmp_path).response() == {"state": "absent"}, "the embeddings have changed"


def test_it_can_be_stopped_and_says_how_far_it_is_and_why_it_failed(
    tmp_path: Path, kept: KeptEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_map, "COMMAND", FAKE.format(wait="time.sleep(60)"))
    one = make(kept, tmp_path)
    one.start()
    while wait_for(one, "computing")["done"] != 1:
        time.sleep(0.02)
    one.stop()
    assert one.response() == {"state": "stopped"} and not list(tmp_path.glob("*.npz"))
    monkeypatch.setattr(image_map, "COMMAND", FAKE.format(wait="raise MemoryError('too large')"))
    one.start()
    assert "too large" in wait_for(one, "failed")["message"]
    assert "A map needs embeddings" in make(None, tmp_path).response()["message"]


def test_points_inside_of_a_polygon() -> None:
    from matplotlib.path import Path as Polygon

    rng = np.random.default_rng(1)
    points, corners = rng.random((2000, 2)), rng.random((9, 2))  # crosses itself
    star = inside_polygon(points, corners)
    angle = np.sort(rng.random(12)) * 2 * np.pi
    corners = 0.5 + 0.4 * rng.random((12, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    np.testing.assert_array_equal(inside_polygon(points, corners), Polygon(corners).contains_points(points))
    assert 0 < star.sum() < 2000
