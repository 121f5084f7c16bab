"""Images inside other files are decoded as image files are, named when they can't be, and never stale."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from containers import COLORS, encoded, write_mnist, write_shard
from PIL import Image

from mlfix_train.audit.reporting.images import open_images
from mlfix_train.audit.review.sprites import encode_full_image
from mlfix_train.data.pixels.containers import (
    arrow_cell,
    arrow_rows,
    containing_file,
    is_contained,
    read_contained,
    tar_member,
    torchvision_item,
)
from mlfix_train.data.pixels.decode import UnreadableImage, decode_image
from mlfix_train.data.pixels.depth import white_level
from mlfix_train.data.pixels.sizes import stored_size
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import open_store
from mlfix_train.data.readers.webdataset import read_webdataset
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError


def write_arrow(path: Path, values: list, column: str = "image", batch: int = 2) -> Path:
    array = pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({column: array})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def test_rows_of_an_arrow_file_in_several_batches(tmp_path: Path) -> None:
    values = [{"bytes": encoded(color), "path": None} for color in (*COLORS, COLORS[0], COLORS[2])]
    file = write_arrow(tmp_path / "a::b.arrow", values, column="an image/1")
    assert arrow_rows(str(file)) == 5
    for row, color in enumerate((*COLORS, COLORS[0], COLORS[2])):
        path = arrow_cell("an image/1", file, row)
        assert is_contained(path) and containing_file(path) == str(file)
        assert (decode_image(path, 8) == color).all(), row


def test_pictures_are_decoded_as_files_are(tmp_path: Path) -> None:
    """Turned by EXIF, 16 bits scaled, alpha on white."""
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGB", (16, 8))
    half.paste((255, 255, 255), (0, 0, 8, 8))
    turned, wide, clear = io.BytesIO(), io.BytesIO(), io.BytesIO()
    half.save(turned, "PNG", exif=exif)
    Image.fromarray(np.full((8, 8), 257 * 50, np.uint16)).save(wide, "PNG")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
    contents = [file.getvalue() for file in (turned, wide, clear)]
    arrow = write_arrow(tmp_path / "x.arrow", [{"bytes": content, "path": None} for content in contents])
    for row, content in enumerate(contents):
        file = tmp_path / f"{row}.png"
        file.write_bytes(content)
        np.testing.assert_array_equal(decode_image(arrow_cell("image", arrow, row), 8), decode_image(str(file), 8))
    upright = decode_image(arrow_cell("image", arrow, 0), 8)
    assert (upright[:3] == 255).all() and (upright[5:] == 0).all()


def test_bits_of_sixteen_are_those_of_the_set(tmp_path: Path) -> None:
    """Images of 12 bits are as bright as files of 12 bits are, grey and colored."""
    grey = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(grey, "PNG")
    arrow = write_arrow(
        tmp_path / "x.arrow", [{"bytes": encoded(), "path": None}, {"bytes": grey.getvalue(), "path": None}]
    )
    shard = write_shard(tmp_path / "s.tar", {"a.png": grey.getvalue(), "b.png": encoded()})
    paths = [arrow_cell("image", arrow, 1), read_webdataset(shard)["path"].iloc[0]]
    for path in paths:
        assert white_level([path]) == 4095
        store = open_store(make_table(["a"], [path], [None]), PixelSpec(8), tmp_path / "cache")
        assert (store[:] == 249).all()


def test_what_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {"a.png": encoded()})
    arrow = write_arrow(tmp_path / "x.arrow", [{"bytes": None, "path": None}, {"bytes": b"", "path": None}])
    for path, reason in (
        (tar_member(tmp_path / "gone.tar", "a.png", 512, 9), "the file is missing"),
        (tar_member(shard, "a.png", 512, 1 << 20), "the shard is truncated"),
        (tar_member(shard, "a.png", 0, 100), "cannot identify image file"),
        (arrow_cell("image", arrow, 0), "the row has no image"),
        (arrow_cell("image", arrow, 1), r"the file is empty \(0 bytes\)"),
        (arrow_cell("image", arrow, 2), "the file has 2 rows"),
    ):
        with pytest.raises(UnreadableImage, match=f"^{reason}$"):
            decode_image(path, 8)


def test_the_store_page_and_panels_show_them(tmp_path: Path) -> None:
    shard = write_shard(
        tmp_path / "s.tar", {f"{i}.png": encoded(color, size=(12, 8)) for i, color in enumerate(COLORS)}
    )
    table = read_webdataset(shard)
    assert pickle.loads(pickle.dumps(table["path"].tolist())) == table["path"].tolist()
    assert stored_size(table, 64) == 12
    store = open_store(table, PixelSpec(8), tmp_path / "cache")
    assert [tuple(image[0, 0]) for image in store[:]] == list(COLORS)
    panel = open_images(table["path"].tolist(), 3)[np.array([2])]
    assert tuple(panel[0, 32, 32]) == COLORS[2]
    page = Image.open(io.BytesIO(encode_full_image(table["path"].iloc[1], lambda: np.zeros((8, 8, 3), np.uint8))))
    assert page.size == (12, 12) and np.abs(np.asarray(page)[6, 6].astype(int) - COLORS[1]).max() < 6
    write_shard(shard, {f"{i}.png": encoded(COLORS[0], size=(12, 8)) for i in range(3)})
    again = open_store(table, PixelSpec(8), tmp_path / "cache")
    assert again.fingerprint != store.fingerprint and tuple(again[:][2, 0, 0]) == COLORS[0]


def test_panels_need_the_files(tmp_path: Path) -> None:
    paths = [tar_member(tmp_path / "gone.tar", "a.png", 0, 9)]
    with pytest.raises(DataError, match="1 of 1 image files do not exist"):
        open_images(paths, 1)


def test_items_of_torchvision(tmp_path: Path) -> None:
    path = torchvision_item("MNIST", {"train": False, "crc32": 7}, write_mnist(tmp_path), 0)
    assert containing_file(path) == ""
    assert (decode_image(path, 8) == 30).all()
    assert (np.asarray(Image.open(io.BytesIO(read_contained(path)))) == 30).all()
    table = make_table(["a"], [path], [None])
    assert (open_store(table, PixelSpec(8), tmp_path / "cache")[:] == 30).all()
