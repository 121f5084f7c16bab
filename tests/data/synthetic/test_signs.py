"""Rendered signs: the same bytes for the same sample, a folder that completes itself, pictures that can be learnt."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlfix_train.data.synthetic import signs
from mlfix_train.data.synthetic.sign_shapes import STYLES, sign_face
from mlfix_train.data.synthetic.signs import SIGN_CLASSES, read_signs, render_sign
from mlfix_train.errors import DataError

SAMPLES = [("stop", 0), ("speed-limit-80", 7), ("keep-left", 149), ("yield", 3), ("stop", 1)]
PAIR = ("speed-limit-60", "speed-limit-80")


def digest(name: str, index: int, seed: int = 0) -> str:
    return hashlib.sha256(render_sign(name, index, seed).tobytes()).hexdigest()


def write_signs(root: Path | str, **settings: object) -> Path:
    table = read_signs(root, **settings)
    assert all(Path(path).is_relative_to(root) for path in table["path"])
    return Path(root)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_classes() -> None:
    assert len(SIGN_CLASSES) >= 24
    assert list(SIGN_CLASSES) == sorted(set(SIGN_CLASSES))
    assert {f"speed-limit-{limit}" for limit in (20, 30, 50, 60, 70, 80, 100, 120)} <= set(SIGN_CLASSES)
    assert all(
        name == name.lower() and set(name) <= set("abcdefghijklmnopqrstuvwxyz-0123456789") for name in SIGN_CLASSES
    )


def test_bytes_do_not_depend_on_order() -> None:
    forwards = [digest(*sample) for sample in SAMPLES]
    backwards = [digest(*sample) for sample in reversed(SAMPLES)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(SAMPLES)


def test_bytes_do_not_depend_on_the_process() -> None:
    script = (
        "import hashlib, sys\n"
        "from mlfix_train.data.synthetic.signs import render_sign\n"
        f"for name, index in {SAMPLES[::-1]!r}:\n"
        "    print(hashlib.sha256(render_sign(name, index).tobytes()).hexdigest())\n"
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [digest(*sample) for sample in SAMPLES[::-1]]


def test_seed_index_and_class_matter() -> None:
    digests = {digest(name, index, seed) for name in PAIR for index in range(4) for seed in range(3)}
    assert len(digests) == 2 * 4 * 3


@pytest.mark.parametrize("name", SIGN_CLASSES)
def test_pictures_are_not_blank(name: str) -> None:
    pictures = np.stack([render_sign(name, index) for index in range(6)])
    assert pictures.shape == (6, 32, 32, 3) and pictures.dtype == np.uint8
    assert np.median(pictures.reshape(6, -1).std(axis=1)) > 8
    assert np.ptp(pictures) > 120


@pytest.mark.parametrize("size", [8, 21, 48])
def test_other_sizes(size: int) -> None:
    assert render_sign("roundabout", 0, size=size).shape == (size, size, 3)


def test_faces_of_a_maker_differ_from_each_other() -> None:
    for style in range(len(STYLES)):
        faces = [np.asarray(sign_face(name, style, 48), float) for name in SIGN_CLASSES]
        gaps = [np.abs(a - b).mean() for k, a in enumerate(faces) for b in faces[:k]]
        assert min(gaps) > 1.0


def test_left_is_right_in_a_mirror() -> None:
    right, left = (np.asarray(sign_face(f"keep-{side}", 0, 64), int) for side in ("right", "left"))
    assert np.abs(left[:, ::-1] - right).mean() < 1


def test_nearest_class_mean_is_above_chance_and_below_perfect() -> None:
    features = np.array([[_features(render_sign(name, index)) for index in range(24)] for name in SIGN_CLASSES])
    means = features[:, :16].mean(axis=1)
    distances = ((features[:, 16:, None] - means) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=-1) == np.arange(len(SIGN_CLASSES))[:, None]).mean()
    assert 4 / len(SIGN_CLASSES) < accuracy < 0.9


def _features(picture: np.ndarray) -> np.ndarray:
    middle = picture[6:26, 6:26].astype(float)
    return ((middle - middle.mean()) / (middle.std() + 1)).ravel()


def test_folder_holds_the_rendered_pictures(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = write_signs(
        tmp_path / "signs", per_class=3, seed=5, size=16, classes=PAIR, progress=lambda *now: seen.append(now)
    )
    assert root == tmp_path / "signs"
    names = {f"{name}/{index:04d}.png" for name in PAIR for index in range(3)}
    assert set(contents(root)) == names | {"signs.json"}
    for name in PAIR:
        picture = np.asarray(Image.open(root / name / "0002.png"))
        assert np.array_equal(picture, render_sign(name, 2, seed=5, size=16))
    assert seen == [(done, 6) for done in range(1, 7)]
    manifest = json.loads((root / "signs.json").read_text())
    assert (manifest["per_class"], manifest["seed"], manifest["size"], manifest["classes"]) == (3, 5, 16, list(PAIR))


def test_count_does_not_change_the_pictures(tmp_path: Path) -> None:
    few = contents(write_signs(tmp_path / "few", per_class=2, classes=PAIR[:1]))
    many = contents(write_signs(tmp_path / "many", per_class=4, classes=PAIR[::-1]))
    shared = [name for name in few if name.endswith(".png")]
    assert len(shared) == 2
    assert all(few[name] == many[name] for name in shared)


def test_a_complete_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_signs(tmp_path, per_class=2, classes=PAIR)
    monkeypatch.setattr(signs, "render_sign", lambda *args: pytest.fail("rendered again"))
    assert write_signs(str(tmp_path), per_class=2, classes=PAIR[::-1]) == tmp_path


def test_an_interrupted_folder_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(write_signs(tmp_path / "whole", per_class=3, classes=PAIR))
    root, calls = tmp_path / "half", []

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_signs(root, per_class=3, classes=PAIR, progress=stop)
    assert not (root / "signs.json").exists()
    (root / PAIR[0] / "0001.png").write_bytes(b"")  # what a full disk leaves
    monkeypatch.setattr(signs, "render_sign", lambda *args: calls.append(args[:2]) or render_sign(*args))
    write_signs(root, per_class=3, classes=PAIR)
    assert calls == [(PAIR[0], 1), (PAIR[1], 1), (PAIR[1], 2)]
    assert contents(root) == whole


@pytest.mark.parametrize("change", [{"per_class": 3}, {"seed": 1}, {"size": 24}, {"classes": PAIR[:1]}])
@pytest.mark.parametrize("complete", [True, False])
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, object], complete: bool) -> None:
    write_signs(tmp_path, per_class=2, classes=PAIR)
    if not complete:
        (tmp_path / "signs.json").rename(tmp_path / "signs.json.partial")
    before = contents(tmp_path)
    with pytest.raises(DataError) as caught:
        write_signs(tmp_path, **{"per_class": 2, "classes": PAIR, **change})
    message = str(caught.value)
    assert str(tmp_path) in message and next(iter(change)) in message
    assert "data.root" in message and "delete" in message
    assert contents(tmp_path) == before


def test_other_settings_names_both_values(tmp_path: Path) -> None:
    write_signs(tmp_path, per_class=2, classes=PAIR)
    with pytest.raises(DataError, match="per_class: 2 in the folder, 9 requested"):
        write_signs(tmp_path, per_class=9, classes=PAIR)


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signs.json").write_text("{")
    with pytest.raises(DataError, match=r"signs\.json is not a manifest"):
        write_signs(tmp_path, per_class=1, classes=PAIR)


def test_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    for call in (lambda: render_sign("speed-limit-08", 0), lambda: write_signs(tmp_path, classes=["speed-limit-08"])):
        with pytest.raises(DataError, match=r"'speed-limit-08'[\s\S]*did you mean 'speed-limit-80'"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"per_class": 0}, {"size": 4}])
def test_numbers_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    (key, value), *_ = wrong.items()
    with pytest.raises(DataError, match=f"{key}={value}"):
        write_signs(tmp_path, **wrong)
