"""Panels: sizes, text that stays in its tile, notes, marks and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from mlfix_train.audit.reporting import panels
from mlfix_train.audit.reporting.panels import GROUND, GUTTER, MARGIN, OVERHANG, Tile, draw_panel, font, save_panel
from mlfix_train.errors import ConfigError, DataError

LONG = [
    *(f"regulatory--maximum-speed-limit-{limit}--g1" for limit in (100, 110, 120, 20)),
    "x" * 200,
    "W" * 200,
    "停止標識停止標識停止標識停止標識",
    "شارع ممنوع المرور هنا لجميع المركبات",
    "תמרור עצור תמרור עצור תמרור",
    "<b onmouseover='x'>bold</b> & more and more",
    "two\nlines\tand\x00more\x1b[31m",
    "Z" + "\u0337\u0322\u031b\u034e" * 40 + "algo",
    "\u202eright-to-left override",
    "$x^{2$ and \\frac",
    "🚦" * 30,
    "\udcff lone surrogate",
    " ",
    "",
]


def pixels(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def differs(image: Image.Image) -> np.ndarray:
    """Where an image is not the ground color, bool ``H,W``."""
    return (np.asarray(image) != ImageColor.getrgb(GROUND)).any(axis=2)


def busy_tiles() -> list[Tile]:
    shapes = [(32, 32), (4, 4), (300, 40), (20, 500), (1, 300), (40, 40)]
    marks = [None, "invalid", LONG[0]]
    return [
        Tile(pixels(*shapes[i % 6]), label, LONG[i - 5], i / len(LONG), f"loss {i}" * (i % 9), marks[i % 3])
        for i, label in enumerate(LONG)
    ]


@pytest.mark.parametrize("size", [9, 11, 24])
@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("width", [0, 5, 40, 104])
def test_shortened_text_fits(text: str, width: int, size: int) -> None:
    assert font(size).getlength(panels.shorten(text, width, font(size))) <= width


def test_shorten_keeps_head_and_tail_and_as_much_as_fits() -> None:
    face = font(11)
    short = {
        limit: panels.shorten(f"regulatory--maximum-speed-limit-{limit}--g1", 92, face) for limit in (100, 120, 20)
    }
    assert len(set(short.values())) == 3
    assert all(form.startswith("reg") and form.endswith(f"{limit}--g1") for limit, form in short.items())
    assert all(face.getlength(form) > 92 - 2 * face.getlength("m") for form in short.values())
    assert panels.shorten("stop", 92, face) == "stop"


def test_labels_that_would_look_alike_are_cut_where_they_differ() -> None:
    face = font(11)
    labels = ["information--pedestrians-crossing--g1", "information--children-crossing--g1", "stop", "stop"]
    labels += [
        f"warning--{kind}-first-{side}--g1" for kind in ("double-curve", "winding-road") for side in ("left", "right")
    ]
    assert len({panels.shorten(label, 70, face) for label in labels}) < 5
    short = panels.shorten_all(labels, 70, face)
    assert list(short) == list(dict.fromkeys(labels))
    assert len(set(short.values())) == 7
    assert all(face.getlength(form) <= 70 for form in short.values())


def test_labels_that_cannot_be_told_apart_still_fit() -> None:
    face = font(11)
    labels = ["x" * 200, "x" * 201, "\n" * 80, "\n" * 81]
    for width in (12, 40, 90):
        assert all(face.getlength(form) <= width for form in panels.shorten_all(labels, width, face).values())


def test_what_cannot_be_drawn_is_spelt_out() -> None:
    assert panels.printable("a\nb\x00\u202e") == r"a\nb\x00\u202e"
    assert panels.printable("停") == r"\u505c"
    assert panels.printable("größe → שלום") == "größe → שלום"


def test_a_line_of_text_is_clipped_to_its_room() -> None:
    for text in LONG:
        assert panels._text(panels.printable(text), 40, 15, font(11), panels.INK).size == (40, 15)


@pytest.mark.parametrize("tile_px", [32, 96, 150])
def test_nothing_is_drawn_between_tiles(tile_px: int) -> None:
    tiles = busy_tiles()
    panel = draw_panel(tiles, "x" * 300, "two\nlines" * 90, columns=6, tile_px=tile_px)
    cell = tile_px + GUTTER
    drawn = differs(panel)
    assert panel.width == max(panels.MIN_WIDTH, 6 * cell - GUTTER) + 2 * MARGIN
    assert not drawn[:, :MARGIN].any()
    assert not drawn[: MARGIN - 4].any() and not drawn[-4:].any()
    body = drawn[MARGIN + 62 : -60]
    for column in range(6):
        left = MARGIN + column * cell
        assert body[:, left : left + tile_px].any()
        assert not body[:, left + tile_px + OVERHANG : left + cell].any()
    assert not body[:, MARGIN + 6 * cell - GUTTER + OVERHANG :].any()


def test_rows_stay_apart() -> None:
    tiles = busy_tiles()
    place = panels._Layout(tiles, 6, 96)
    drawn = differs(draw_panel(tiles, "t", columns=6))
    for row in range(1, place.rows):
        top = MARGIN + 62 + row * place.height
        assert not drawn[top - 9 : top - 4].any()


def test_an_image_keeps_its_aspect_and_color() -> None:
    red = np.zeros((16, 32, 3), np.uint8)
    red[..., 0] = 200
    fitted = panels.fit_image(red, 96)
    assert fitted.size == (96, 48)
    assert (np.asarray(fitted) == (200, 0, 0)).all()
    assert panels.fit_image(pixels(1, 3000), 96).size == (96, 1)
    assert panels.fit_image(pixels(700, 500), 96).size == (69, 96)


def test_tiles_stand_in_the_given_order() -> None:
    shades = [20, 90, 160, 230, 120]
    tiles = [Tile(np.full((32, 32, 3), shade, np.uint8), "a") for shade in shades]
    panel = np.asarray(draw_panel(tiles, "order", columns=2))
    place = panels._Layout(tiles, 2, 96)
    spots = [(MARGIN + 62 + i // 2 * place.height + 48, MARGIN + i % 2 * place.cell + 48) for i in range(5)]
    assert [panel[spot][0] for spot in spots] == shades


def test_the_bar_is_as_long_as_the_suspicion() -> None:
    for suspicion, length in ((0.0, 0), (0.5, 48), (1.0, 96), (1.0 + 1e-9, 96)):
        panel = np.asarray(draw_panel([Tile(pixels(), "stop", suspicion=suspicion)], "bar"))
        bar = panel[MARGIN + 62 + 96 + 5, MARGIN : MARGIN + 96]
        assert (bar == ImageColor.getrgb(panels.VERMILLION)).all(axis=1).sum() == length


def test_marks_and_predictions_show() -> None:
    plain = Tile(pixels(), "stop")
    variants = [
        plain,
        *(Tile(pixels(), "stop", mark=mark) for mark in ("invalid", "yield")),
        Tile(pixels(), "stop", "go"),
    ]
    assert len({draw_panel([tile], "t").tobytes() for tile in variants}) == 4
    assert draw_panel([Tile(pixels(), "stop", "stop")], "t").tobytes() == draw_panel([plain], "t").tobytes()
    assert Tile(pixels(), "stop", "go", mark="yield").second_label == "yield"
    assert Tile(pixels(), "stop", "go", mark="invalid").second_label == "go"


@pytest.mark.parametrize(
    ("count", "limit", "note"),
    [
        (0, 108, "no samples"),
        (1, 108, "1 sample"),
        (108, 108, "108 samples"),
        (1234, 108, "first 108 of 1,234"),
        (3, 2, "first 2 of 3"),
    ],
)
def test_the_subtitle_counts(count: int, limit: int, note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    whole = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda pen, xy, text, *a, **k: (written.append(text), whole(pen, xy, text, *a, **k)),
    )
    panels._text.cache_clear()
    panel = draw_panel([Tile(pixels(), "stop")] * count, "title", "slice speed", max_tiles=limit)
    assert f"slice speed · {note}" in written
    assert panel.info["Description"] == f"slice speed · {note}"
    assert panel.width >= panels.MIN_WIDTH


def test_the_note_survives_a_long_subtitle(tmp_path: Path) -> None:
    panel = draw_panel([Tile(pixels(), "stop")] * 9, "\x00title\udcff", "long " * 100, columns=1, max_tiles=4)
    path = save_panel(panel, tmp_path / "p.png")
    with Image.open(path) as again:
        assert again.text["Title"] == r"\x00title\udcff"
        assert again.text["Description"].endswith("first 4 of 9")


def test_a_sheet_is_landscape_with_at_most_twelve_columns() -> None:
    cell = 96 + GUTTER
    for count, columns in ((12, 5), (108, 12), (60, 11)):
        assert draw_panel([Tile(pixels(), "stop")] * count, "t").width == columns * cell - GUTTER + 2 * MARGIN


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((0, 32, 3), np.uint8),
    ],
)
def test_other_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError) as error:
        Tile(image, "stop")
    assert (
        str(image.shape) in str(error.value) and str(image.dtype) in str(error.value) and "'stop'" in str(error.value)
    )


@pytest.mark.parametrize("suspicion", [float("nan"), -0.1, 1.5, float("inf")])
def test_suspicion_outside_its_range_is_refused(suspicion: float) -> None:
    with pytest.raises(DataError, match="suspicion"):
        Tile(pixels(), "stop", suspicion=suspicion)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"tile_px": 5}, {"max_tiles": 0}])
def test_sizes_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        draw_panel([Tile(pixels(), "stop")], "t", **wrong)


def test_a_saved_panel_opens_and_leaves_nothing_else(tmp_path: Path) -> None:
    panel = draw_panel(busy_tiles(), "title", "subtitle")
    path = save_panel(panel, tmp_path / "new" / "folder" / "panel.png")
    assert [file.name for file in path.parent.iterdir()] == ["panel.png"]
    with Image.open(path) as again:
        assert again.format == "PNG" and again.tobytes() == panel.tobytes()
    assert save_panel(panel, str(path)).read_bytes() == path.read_bytes()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_panel(draw_panel([], "old"), tmp_path / "panel.png")
    old = path.read_bytes()

    def half(self, file, **options) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_panel(draw_panel([], "new"), path)
    assert path.read_bytes() == old and [file.name for file in tmp_path.iterdir()] == ["panel.png"]


def test_drawing_repeats_exactly() -> None:
    assert draw_panel(busy_tiles(), "t").tobytes() == draw_panel(busy_tiles(), "t").tobytes()
