"""The pixel store: right, fresh, resumable, small in memory, and clear about what went wrong."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlfix_train.data.pixels import build as pixel_build
from mlfix_train.data.pixels import decode
from mlfix_train.data.pixels import store as pixels
from mlfix_train.data.pixels.decode import GREY, Chunk, decode_image
from mlfix_train.data.pixels.spec import PixelsConfig, PixelSpec
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.errors import ConfigError, DataError

SPEC = PixelSpec(size=12)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """23 pictures of random pixels and sizes."""
    rng = np.random.default_rng(0)
    for i in range(23):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9 + i, 20, 3), dtype=np.uint8)).save(path)
    return read_folder(tmp_path / "data")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_build, "CHUNK_SIZE", 4)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded in this process."""
    names: list[str] = []
    real = decode_image

    def spy(path: str, *how: object) -> np.ndarray:
        names.append(Path(path).name)
        return real(path, *how)

    monkeypatch.setattr(decode, "decode_image", spy)
    return names


def expected(table: pd.DataFrame, spec: PixelSpec = SPEC) -> np.ndarray:
    return np.stack([decode_image(path, spec.size, spec.aspect) for path in table["path"]])


def folder_of(cache: Path) -> Path:
    (only,) = cache.iterdir()
    return only


# Content


@pytest.mark.parametrize("spec", [SPEC, PixelSpec(size=9, aspect="pad")])
def test_content(table: pd.DataFrame, cache: Path, small_chunks: None, spec: PixelSpec) -> None:
    store = open_store(table, spec, cache)
    wanted = expected(table, spec)
    assert len(store) == 23 and store.shape == (23, spec.size, spec.size, 3)
    assert (store[np.arange(23)] == wanted).all()
    assert (store[[22, 0, 0, 7]] == wanted[[22, 0, 0, 7]]).all()
    assert (store[3:9] == wanted[3:9]).all()
    assert store[np.array([], dtype=np.int64)].shape == (0, spec.size, spec.size, 3)
    assert store[[1]].flags.writeable, "a copy, not the file"
    assert (np.load(store.folder / "pixels.npy", mmap_mode="r") == wanted).all(), "plain NumPy reads it"
    assert store.unreadable == {}


def test_rows_follow_the_table(table: pd.DataFrame, cache: Path) -> None:
    backwards = table.iloc[::-1]
    assert (open_store(backwards, SPEC, cache)[:] == expected(table)[::-1]).all()
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()


def test_gtsrb(gtsrb: Path, cache: Path) -> None:
    table = read_folder(gtsrb)
    store = open_store(table, PixelSpec(size=32), cache)
    for row in range(0, len(table), 37):
        picture = np.asarray(Image.open(table["path"].iloc[row]).convert("RGB"))
        assert picture.shape == (32, 32, 3) and (store[[row]][0] == picture).all()


def test_nothing_is_written_beside_the_pictures(table: pd.DataFrame, cache: Path, tmp_path: Path) -> None:
    before = sorted((tmp_path / "data").rglob("*"))
    open_store(table, SPEC, cache)
    assert sorted((tmp_path / "data").rglob("*")) == before
    assert sorted(p.name for p in folder_of(cache).iterdir() if p.name != "lock") == [
        "checked.json",
        "pixels.npy",
        "store.json",
    ]


def test_progress(table: pd.DataFrame, cache: Path, small_chunks: None) -> None:
    seen: list[tuple[int, int]] = []
    open_store(table, SPEC, cache, progress=lambda *now: seen.append(now))
    assert seen[-1] == (23, 23)


# Freshness


def test_opened_again_without_decoding(table: pd.DataFrame, cache: Path, decoded: list[str]) -> None:
    first = open_store(table, SPEC, cache)
    assert len(decoded) == 23
    stamp = (first.folder / "pixels.npy").stat().st_mtime_ns
    again = open_store(table, SPEC, cache)
    assert len(decoded) == 23 and (again.folder / "pixels.npy").stat().st_mtime_ns == stamp
    relabelled = table.assign(label="x", group="y", extra=1)
    assert open_store(relabelled, SPEC, cache).fingerprint == first.fingerprint and len(decoded) == 23


def repaint(path: str, color: str) -> None:
    Image.new("RGB", Image.open(path).size, color).save(path)


def test_a_changed_picture(table: pd.DataFrame, cache: Path) -> None:
    open_store(table, SPEC, cache)
    repaint(table["path"].iloc[5], "lime")
    store = open_store(table, SPEC, cache)
    assert (store[[5]] == [0, 255, 0]).all() and (store[:] == expected(table)).all()


def test_a_changed_picture_of_the_same_size_and_time(tmp_path: Path, cache: Path) -> None:
    """Unpacking a mended archive with the old times (tar, rsync -t, cp -p) over uncompressed pictures."""
    for name in ("a/1.bmp", "b/1.bmp"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        Image.new("RGB", (12, 12), "red").save(tmp_path / "data" / name)
    table = read_folder(tmp_path / "data")
    open_store(table, SPEC, cache)
    path = Path(table["path"].iloc[0])
    before = path.stat()
    repaint(str(path), "lime")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert (open_store(table, SPEC, cache)[[0]] == [0, 255, 0]).all(), "served stale"


def test_added_removed_and_renamed_pictures(table: pd.DataFrame, cache: Path, tmp_path: Path) -> None:
    open_store(table, SPEC, cache)
    shutil.copy(table["path"].iloc[0], tmp_path / "data" / "a" / "new.png")
    more = read_folder(tmp_path / "data")
    assert len(more) == 24 and (open_store(more, SPEC, cache)[:] == expected(more)).all()
    assert (open_store(table.iloc[:9], SPEC, cache)[:] == expected(table)[:9]).all()
    os.replace(table["path"].iloc[1], tmp_path / "data" / "a" / "zz.png")
    renamed = read_folder(tmp_path / "data")
    assert (open_store(renamed, SPEC, cache)[:] == expected(renamed)).all()


def test_a_lost_picture_is_noticed(table: pd.DataFrame, cache: Path) -> None:
    open_store(table, SPEC, cache)
    os.unlink(table["path"].iloc[4])
    store = open_store(table, SPEC, cache, max_unreadable=0.1)
    assert store.unreadable == {table.index[4]: "the file is missing"}


def test_settings_have_stores_of_their_own(table: pd.DataFrame, cache: Path, decoded: list[str]) -> None:
    specs = [SPEC, PixelSpec(size=13), PixelSpec(size=12, aspect="pad")]
    stores = [open_store(table, spec, cache) for spec in specs]
    assert len({store.folder for store in stores}) == 3
    count = len(decoded)
    for spec, store in zip(specs, stores, strict=True):
        assert (open_store(table, spec, cache)[:] == store[:]).all()
        assert (store[:] == expected(table, spec)).all()
    assert len(decoded) == count, "they stand side by side"


def test_a_new_decoder_builds_anew(table: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = open_store(table, SPEC, cache).fingerprint
    monkeypatch.setattr(pixels, "DECODER_VERSION", -1)
    assert open_store(table, SPEC, cache).fingerprint != old


# Interruption and damage


class Stopped(Exception):
    pass


def test_an_interrupted_build_goes_on(
    table: pd.DataFrame, cache: Path, small_chunks: None, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decode.decode_chunk
    (table_path,) = {Path(table["path"].iloc[2])}
    table_path.write_bytes(b"")  # an unreadable one in the first chunk: its note must survive too

    def stop_at_the_fourth(chunk: Chunk) -> dict[int, str]:
        if chunk.start == 12:
            raise Stopped
        return real(chunk)

    monkeypatch.setattr(decode, "decode_chunk", stop_at_the_fourth)
    with pytest.raises(Stopped):
        open_store(table, SPEC, cache, max_unreadable=0.1)
    assert len(decoded) == 12 and not (folder_of(cache) / "store.json").exists()
    monkeypatch.setattr(decode, "decode_chunk", real)
    store = open_store(table, SPEC, cache, max_unreadable=0.1)
    names = [Path(path).name for path in table["path"]]
    assert decoded == names, "every picture once, none again"
    wanted = np.stack(
        [np.full((12, 12, 3), GREY) if i == 2 else decode_image(p, 12) for i, p in enumerate(table["path"])]
    )
    assert (store[:] == wanted).all()
    assert store.unreadable == {table.index[2]: "the file is empty (0 bytes)"}


KILLED = """
    import os, signal, sys
    from mlfix_train.data.pixels import decode
    from mlfix_train.data.pixels import build as pixel_build
    from mlfix_train.data.pixels.store import PixelSpec, open_store
    from mlfix_train.data.readers.folder import read_folder

    pixel_build.CHUNK_SIZE = 4
    real = decode.decode_chunk
    def dies(chunk):
        if chunk.start == 16:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(chunk)
    decode.decode_chunk = dies
    open_store(read_folder(sys.argv[1]), PixelSpec(size=12), sys.argv[2])
"""


def test_a_killed_build_goes_on(
    table: pd.DataFrame, cache: Path, tmp_path: Path, small_chunks: None, decoded: list[str]
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "data"), str(cache)]
    assert subprocess.run(command, check=False).returncode == -9
    store = open_store(table, SPEC, cache)
    assert len(decoded) == 23 - 16
    assert (store[:] == expected(table)).all()


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe\x00 not text\n",
        b"\0" * 64,
        b"[0, {}\n[4",
        b"5\nnull\n[1]\n[0, 0]\n",
        b'{}\n[0]\n"x"\n',
    ],
)
def test_damaged_notes(
    table: pd.DataFrame, cache: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    """Notes that a crash of the machine left half-written cost some decoding again, nothing more."""
    real = decode.decode_chunk
    monkeypatch.setattr(decode, "decode_chunk", lambda c: real(c) if c.start < 8 else (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        open_store(table, SPEC, cache)
    with open(folder_of(cache) / "done.jsonl", "ab") as file:
        file.write(damage)
    monkeypatch.setattr(decode, "decode_chunk", real)
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()


@pytest.mark.parametrize("content", [b"", b"\0" * 128, b"\0" * (128 + 23 * 432), b"garbage"])
def test_a_damaged_part(table: pd.DataFrame, cache: Path, content: bytes) -> None:
    """What a process leaves that is killed while it reserves the room: a file without its header."""
    folder = open_store(table, SPEC, cache).folder
    for name in ("store.json", "pixels.npy"):
        (folder / name).unlink()
    (folder / "pixels.part").write_bytes(content)
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()


@pytest.mark.parametrize("name", ["pixels.npy", "store.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "gone", "other", "list"])
def test_a_damaged_store_is_built_anew(table: pd.DataFrame, cache: Path, name: str, damage: str) -> None:
    file = open_store(table, SPEC, cache).folder / name
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "garbage":
        file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))
    elif damage == "gone":
        file.unlink()
    elif damage == "list":
        file.write_bytes(b"[1, 2]")
    else:
        other = open_store(table.iloc[:9], SPEC, cache.with_name("other")).folder
        shutil.copy(other / name, file)
    store = open_store(table, SPEC, cache)
    assert len(store) == 23 and (store[:] == expected(table)).all()


def test_a_build_that_ends_between_its_last_two_steps(table: pd.DataFrame, cache: Path) -> None:
    folder = open_store(table, SPEC, cache).folder
    (folder / "store.json").unlink()
    (folder / "done.jsonl").write_text("[0, {}]\n")
    (folder / "pixels.npy").write_bytes(b"old")
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()


def test_two_processes_at_once(table: pd.DataFrame, cache: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom mlfix_train.data.pixels.spec import PixelSpec\n"
        "from mlfix_train.data.pixels.store import open_store\n"
        "from mlfix_train.data.readers.folder import read_folder\n"
        "print(open_store(read_folder(sys.argv[1]), PixelSpec(size=12), sys.argv[2])[:].sum())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [process.communicate()[0] for process in running]
    assert [int(s) for s in sums] == [expected(table).sum()] * 2


# Unreadable images


def test_unreadable_images_are_listed(table: pd.DataFrame, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path(table["path"].iloc[3]).write_text("text")
    Path(table["path"].iloc[9]).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        store = open_store(table, SPEC, cache, max_unreadable=2 / 23)
    assert set(store.unreadable) == {table.index[3], table.index[9]}
    assert store.unreadable[table.index[9]] == "the file is empty (0 bytes)"
    assert (store[[3, 9]] == GREY).all()
    assert "2 image(s) can't be read" in caplog.text and table.index[3] in caplog.text
    again = open_store(table, SPEC, cache, max_unreadable=0.5)
    assert again.unreadable == store.unreadable


def test_too_many_unreadable_images(table: pd.DataFrame, cache: Path) -> None:
    for path in table["path"].iloc[:8]:
        Path(path).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        open_store(table, SPEC, cache, max_unreadable=7.9 / 23)
    text = str(caught.value)
    assert "8 of 23 images can't be read" in text and "pixels.max_unreadable" in text
    assert f"{table.index[0]}: the file is empty" in text and "and 3 more" in text
    with pytest.raises(DataError, match=r"8 of 23"):
        open_store(table, SPEC, cache)
    assert len(open_store(table, SPEC, cache, max_unreadable=0.5).unreadable) == 8


# The cache


def test_a_cache_that_is_a_file(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"(?s)pixel store .* can't be written: .*pixels.cache="):
            open_store(table, SPEC, cache)


NOT_ALLOWED = """
    import os, sys
    from mlfix_train.data.pixels import build as pixel_build
    from mlfix_train.data.pixels.store import open_store
    from mlfix_train.data.pixels.spec import PixelSpec
    from mlfix_train.data.samples import make_table
    from mlfix_train.errors import DataError

    os.setgid(65534)
    os.setuid(65534)
    try:
        open_store(make_table(["a"], ["/nowhere"], ["x"]), PixelSpec(), sys.argv[1])
    except DataError as error:
        print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's place, which root alone can")
@pytest.mark.parametrize("mode", [0o700, 0o555])
def test_a_cache_of_another_user(tmp_path: Path, mode: int) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.name.startswith("pytest"):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    command = [sys.executable, "-c", textwrap.dedent(NOT_ALLOWED), str(tmp_path / "cache")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "can't be" in result.stdout and "pixels.cache=" in result.stdout, result.stderr


def test_a_read_only_store_is_opened(table: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(table, SPEC, cache)
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: pytest.fail("writes"))
    monkeypatch.setattr(os, "replace", lambda *a, **k: pytest.fail("writes"))
    assert len(open_store(table, SPEC, cache)) == 23


def test_no_room(table: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = PixelSpec(size=512)
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(cache.parent)._replace(free=10_000)
        patch.setattr(pixel_build.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DataError, match=r"(?s)no space left for the pixel store .* it needs 18 MB.*pixels.cache"):
            open_store(table, big, cache)
    assert not (folder_of(cache) / "pixels.part").exists()


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_no_room_on_the_way(table: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DataError, match=r"no space left for the pixel store .* it needs 10 kB"):
            open_store(table, SPEC, cache)
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all(), "once there is room it goes on"


def test_spec_errors() -> None:
    with pytest.raises(ConfigError, match=r"(?s)aspect=sqash.*did you mean 'squash'"):
        PixelSpec(aspect="sqash")
    for size in (7, 1025, 40.0, None):
        with pytest.raises(ConfigError, match=r"size=.* out of range"):
            PixelSpec(size=size)
    for values in ({"size": 7}, {"aspect": "crop"}, {"max_unreadable": 1.1}, {"max_unreadable": -0.1}):
        with pytest.raises(ConfigError):
            PixelsConfig(**values)


def test_a_section_without_a_size_takes_the_callers() -> None:
    assert PixelsConfig().spec() == PixelSpec()
    assert PixelsConfig(size=None, aspect="pad").spec(64) == PixelSpec(64, "pad")
    assert PixelsConfig(size=32).spec(64) == PixelSpec(32)


def test_flipped_bytes_are_found_and_decoded_again(
    table: pd.DataFrame, cache: Path, decoded: list[str], caplog
) -> None:
    store = open_store(table, SPEC, cache)
    path = store.folder / "pixels.npy"
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    decoded.clear()
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()
    assert len(decoded) == 23
    assert "its pixels don't match their checksum" in caplog.text


def test_a_copied_store_is_checked_once_and_used(table: pd.DataFrame, cache: Path, decoded: list[str]) -> None:
    store = open_store(table, SPEC, cache)
    path = store.folder / "pixels.npy"
    path.write_bytes(path.read_bytes())  # the same content, another time
    decoded.clear()
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()
    assert decoded == []
    assert json.loads((store.folder / "checked.json").read_text())[1] == pixels.file_state(path)


def test_notes_of_pixels_that_never_reached_the_disk(
    table: pd.DataFrame, cache: Path, small_chunks: None, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut: the notes are there, the pixels of a chunk are not."""
    real = decode.decode_chunk
    monkeypatch.setattr(decode, "decode_chunk", lambda c: real(c) if c.start < 12 else (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        open_store(table, SPEC, cache)
    part = folder_of(cache) / "pixels.part"
    content = bytearray(part.read_bytes())
    content[128 + 4 * 432 : 128 + 8 * 432] = bytes(4 * 432)
    part.write_bytes(content)
    monkeypatch.setattr(decode, "decode_chunk", real)
    decoded.clear()
    assert (open_store(table, SPEC, cache)[:] == expected(table)).all()
    assert len(decoded) == 23 - 8, "the chunk without pixels again, and what was not done"


# Processes


def test_pickling(table: pd.DataFrame, cache: Path) -> None:
    store = open_store(table, SPEC, cache)
    body = pickle.dumps(store)
    assert len(body) < 1000, "the path, not the pixels"
    assert (pickle.loads(body)[:] == store[:]).all()


def test_many_processes_give_the_same(
    table: pd.DataFrame, cache: Path, small_chunks: None, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(table["path"].iloc[6]).write_text("text")
    serial = open_store(table, SPEC, cache, max_unreadable=0.1)
    assert len(decoded) == 23
    monkeypatch.setattr(pixel_build, "SERIAL_LIMIT", 0)
    parallel = open_store(table, SPEC, cache.with_name("parallel"), workers=2, max_unreadable=0.1)
    assert len(decoded) == 23, "decoded elsewhere"
    assert (parallel[:] == serial[:]).all() and parallel.unreadable == serial.unreadable
    assert json.loads((parallel.folder / "store.json").read_text()) == json.loads(
        (serial.folder / "store.json").read_text()
    )


def test_a_file_that_vanishes_under_the_workers(
    table: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in a worker comes back as what it is."""
    monkeypatch.setattr(pixel_build, "SERIAL_LIMIT", 0)
    real = pixel_build.map_unordered

    def without_file(*args: object) -> object:
        (folder_of(cache) / "pixels.part").unlink()
        return real(*args)

    monkeypatch.setattr(pixel_build, "map_unordered", without_file)
    with pytest.raises(DataError, match=r"can't be written: No such file or directory"):
        open_store(table, SPEC, cache, workers=2)


def die(chunk: Chunk) -> dict[int, str]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_worker_that_dies_names_its_images(table: pd.DataFrame, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_build, "SERIAL_LIMIT", 0)
    monkeypatch.setattr(decode, "decode_chunk", die)
    with pytest.raises(DataError, match=r"a worker process died .*a/00\.png to .*b/21\.png(?s:.*)SIGKILL"):
        open_store(table, SPEC, cache, workers=2)


MEMORY = """
    import sys
    import numpy as np
    from mlfix_train.data.pixels.store import PixelStore

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

    store = PixelStore(sys.argv[1])
    order = np.random.default_rng(0).permutation(len(store)) if sys.argv[2] == "random" else np.arange(len(store))
    store[order[:64]]
    before, peak = resident(), 0.0
    for start in range(0, len(order), 128):
        store[order[start : start + 128]]
        peak = max(peak, resident())
    print(peak - before)
"""


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 300 MB, made by hand."""
    folder = tmp_path_factory.mktemp("large")
    count = 62_500
    block = np.random.default_rng(0).integers(0, 256, (2500, 40, 40, 3), dtype=np.uint8).tobytes()
    with open(folder / "pixels.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 40, 40, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(25):
            file.write(block)
    (folder / "store.json").write_text(json.dumps({"fingerprint": "x", "unreadable": {}}))
    yield folder
    (folder / "pixels.npy").unlink()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the resident memory from /proc")
@pytest.mark.parametrize("order", ["sequential", "random"])
def test_memory_stays_flat(large_store: Path, order: str) -> None:
    """A process stays small however large the store is, also where the system has all of it in its cache."""
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(large_store), order]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 120, f"resident memory grew by {grown:.0f} MB of 300"


def test_large_store_reads_right(large_store: Path) -> None:
    store = PixelStore(large_store)
    plain = np.load(large_store / "pixels.npy", mmap_mode="r")
    rng = np.random.default_rng(1)
    for _ in range(3):
        rows = rng.integers(0, len(store), 6000)
        assert (store[rows] == plain[rows]).all(), "also after pages were handed back"


# Notes on the data


def test_twelve_bits_in_sixteen(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """White is that of the whole set: the same set gives the same pixels, and another image may change it."""
    rng = np.random.default_rng(0)
    wide = {
        f"{'ab'[i % 2]}/{i}.png": rng.integers(0, 3000 if i else 4000, (12, 12)).astype(np.uint16) for i in range(9)
    }
    for name, values in wide.items():
        (tmp_path / "wide" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / "wide" / name)
    table = read_folder(tmp_path / "wide")
    with caplog.at_level(logging.INFO):
        store = open_store(table, SPEC, cache)
    assert "the 16-bit images hold 12 bits at most: they are scaled so that 4,095 is white" in caplog.text
    wanted = np.stack([np.round(wide[name] / 4095 * 255)[..., None].repeat(3, 2) for name in table.index])
    assert abs(store[:] - wanted).max() <= 1 and store.white == 4095
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert (open_store(table.iloc[::-1], SPEC, cache)[:] == store[:][::-1]).all()
        open_store(table, SPEC, cache)
    assert caplog.text.count("4,095 is white") == 2, "said whenever it is opened"
    Image.fromarray(np.full((12, 12), 50_000, np.uint16)).save(tmp_path / "wide/a/full.png")
    full = open_store(read_folder(tmp_path / "wide"), SPEC, cache)
    assert full.white == 65535 and full[[list(read_folder(tmp_path / "wide").index).index("a/full.png")]].max() == 195


def test_animated_images_are_said(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (12, 12), (20 * i, 0, 0)) for i in range(3)]
    (tmp_path / "a").mkdir()
    frames[0].save(tmp_path / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[1].save(tmp_path / "a" / "still.gif")
    with caplog.at_level(logging.INFO):
        open_store(read_folder(tmp_path), SPEC, cache)
    assert "1 image(s) have several frames or pages; the first one is used: a/moving.gif" in caplog.text


def test_black_images_are_said(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Masks with class numbers as pixels look black."""
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 5, (12, 12), dtype=np.uint8)).save(tmp_path / "a" / f"{i}.png")
    open_store(read_folder(tmp_path), SPEC, cache)
    assert "10 of 10 images that were looked at are black: are they masks" in caplog.text
