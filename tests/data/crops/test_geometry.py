"""Where boxes lie in their photos."""

from __future__ import annotations

import pytest

from mlfix_train.data.crops.geometry import NotCropped, Placement, decode_reduction, place_box
from mlfix_train.data.crops.spec import CropSpec


@pytest.mark.parametrize(
    ("corners", "problem"),
    [
        ((50, 10, 40, 20), "swapped corners"),
        ((40, 20, 50, 10), "swapped corners"),
        ((40, 20, 40, 30), "no area"),
        ((40, 20, 50, 20), "no area"),
        ((100, 20, 120, 30), "outside"),
        ((-30, 20, 0, 30), "outside"),
        ((20, -40, 30, -10), "outside"),
        ((20, 80, 30, 90), "outside"),
        ((20, 20, 20.5, 30), "too small"),
        ((-20, 20, 0.5, 30), "too small"),
    ],
)
def test_boxes_that_cant_be_cropped(corners: tuple, problem: str) -> None:
    with pytest.raises(NotCropped) as caught:
        place_box(corners, 100, 80, False, CropSpec())
    assert caught.value.problem == problem
    assert f"{corners[0]:g}" in caught.value.detail or problem == "too small"


def test_boxes_that_reach_out_are_cut_at_the_edge() -> None:
    placed = place_box((-10, -20, 30, 20), 100, 80, False, CropSpec())
    assert placed.box == (-10, -20, 30, 20)
    assert placed.crop == (0, 0, 30, 20)
    assert placed.clipped == pytest.approx(1 - 600 / 1600)
    assert place_box((0, 0, 100, 80), 100, 80, False, CropSpec()).clipped == 0


def test_margins_end_at_the_edge_but_not_at_that_of_a_panorama() -> None:
    spec = CropSpec(margin=0.5)
    assert place_box((10, 40, 30, 60), 100, 80, False, spec).crop == (0, 30, 40, 70)
    assert place_box((2, 40, 22, 60), 100, 80, True, spec).crop == (-8, 30, 32, 70)
    wide = place_box((10, 40, 80, 60), 100, 80, True, spec).crop
    assert wide[2] - wide[0] == 100 and sum(wide[::2]) / 2 == 45


def test_panoramas_wrap() -> None:
    assert place_box((90, 10, 115, 20), 100, 80, True, CropSpec()).crop == (90, 10, 115, 20)
    assert place_box((-5, 10, 5, 20), 100, 80, True, CropSpec()).crop == (95, 10, 105, 20)
    with pytest.raises(NotCropped, match="outside"):
        place_box((110, 10, 115, 20), 100, 80, True, CropSpec())


def test_one_small_box_keeps_the_whole_photo_sharp() -> None:
    def square(side: float) -> Placement:
        return Placement((0, 0, side, side), (0, 0, side, side), 0.0)

    spec = CropSpec(size=40)
    assert [decode_reduction([square(side)], spec) for side in (79, 159, 160, 320, 640, 5000)] == [1, 1, 2, 4, 8, 8]
    assert decode_reduction([square(5000), square(41)], spec) == 1
    assert decode_reduction([square(5000)], CropSpec(size=None)) == 1
