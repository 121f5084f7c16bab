"""File names of crops."""

from __future__ import annotations

from urllib.parse import unquote

import pandas as pd
import pytest

from mlfix_train.data.crops.names import crop_ids, escape_name


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("speed/50 km:h", "speed%2F50 km%3Ah"),
        ("50%", "50%25"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E%2E"),
        ("end.", "end%2E"),
        (" blank ", "%20blank%20"),
        ("CON", "%43ON"),
        ("com1.x", "%63om1.x"),
        ("a\nb\t", "a%0Ab%09"),
        ('<"|?*\\>', "%3C%22%7C%3F%2A%5C%3E"),
        ("größe 停", "größe 停"),
        ("regulatory--stop--g1", "regulatory--stop--g1"),
    ],
)
def test_labels_become_names_of_folders(label: str, folder: str) -> None:
    assert escape_name(label) == folder
    assert unquote(folder) == label


def test_long_labels_are_cut_and_stay_apart() -> None:
    a, b = escape_name("停" * 150 + "a"), escape_name("停" * 150 + "b")
    assert a != b and len(a.encode()) <= 200
    a.encode().decode()


def test_ids_follow_from_keys_and_stay_when_boxes_are_reordered() -> None:
    rows = [("p", "k1", 0, "a", 1.0), ("p", "k2", 1, "a", 2.0), ("q", "77", 0, "a/b", 3.0), ("p", "k3", 2, "b", 1.0)]
    columns = ["photo", "annotation", "position", "label", "x_min"]
    boxes = pd.DataFrame(rows, columns=columns).assign(y_min=0.0, x_max=9.0, y_max=9.0)
    ids = crop_ids(boxes, "keys", ".jpg", True)
    assert ids[2] == "a%2Fb/q-77.jpg"
    assert len(set(ids)) == 4 and all(name.startswith(("a/p-", "b/p-", "a%2Fb/q-")) for name in ids)
    back = boxes.iloc[::-1]
    assert crop_ids(back, "keys", ".jpg", True) == ids[::-1]
    assert crop_ids(boxes.iloc[1:], "keys", ".jpg", True) == ids[1:]
    by_place = crop_ids(boxes, "keys", ".jpg", False)
    assert by_place[0].split("-")[1] == by_place[3].split("-")[1] != by_place[1].split("-")[1]
    assert crop_ids(boxes, "positions", ".jpg", True) == ["a/p-0.jpg", "a/p-1.jpg", "a%2Fb/q-0.jpg", "b/p-2.jpg"]
    twice = pd.concat([boxes, boxes])
    assert len(set(crop_ids(twice, "keys", ".jpg", False))) == 8
