"""``mlfix sort``: embeds images, finds neighbours and near-duplicates, and orders everything by visual similarity."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from mlfix_train.audit.similarity.neighbours import Neighbours
from mlfix_train.audit.similarity.order_files import read_order, samples_fingerprint, write_embeddings, write_order
from mlfix_train.audit.similarity.seriation import insert_new, path_steps, seriate, outlier_score
from mlfix_train.commands import embedding, points, sort_pictures
from mlfix_train.commands.progress import Countdown, count_images, duration
from mlfix_train.config import build as config
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.pixels.store import open_store
from mlfix_train.errors import ConfigError, DataError, check_choice, check_range

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> pd.DataFrame:
    """Sorts images.

    Args:
        cfg: the composed configuration of ``mlfix sort``.

    Returns:
        The order, see :mod:`mlfix_train.audit.similarity.order_files`; it and what belongs to it are also written below ``out``.

    Raises:
        MlfixError: data, a network, weights, embeddings or settings that can't be used, with the hint.
    """
    started = time.monotonic()
    _check(cfg)
    device = _device(cfg)
    out = Path(str(cfg.out)).expanduser()
    table = config.build_table(cfg)
    built = embedding.build(cfg, device)
    size = cfg.pixels.size if cfg.pixels.size is not None else built.pixels or 40
    pixels, store_options = config.pixel_settings(cfg, size=int(size))
    store = open_store(table, pixels, **store_options, progress=count_images)
    rows = np.flatnonzero(~table.index.isin(store.unreadable))
    if not len(rows):
        raise DataError("none of the images can be read", "mend them, or point data.root at others")
    readable = table.iloc[rows]
    if cfg.start:
        read_order(cfg.start, readable.index, "start", partial=True)  # mistakes come before the long work
    sort_pictures.slice_rows(cfg, readable["label"])
    found = points.embed_all(cfg, built, store, rows, readable.index, out, device)
    clock = time.monotonic()
    order = arrange(cfg, found.points, found.neighbours, readable)
    groups, duplicates = points.find_duplicates(cfg, built, found, store, rows, table, device)
    order["duplicate_group"] = groups
    about = {
        "used": built.used, "images": len(rows), "unreadable": len(table) - len(rows),
        "samples": samples_fingerprint(readable.index), "pixels": store.fingerprint, "key": found.key,
        "neighbour_recall": round(found.neighbours.recall, 4), **built.notes, "threshold": found.threshold,
        "path": _path_figures(found.points, order),
    }  # fmt: skip
    write_embeddings(found.points, out / "embeddings.npy")
    write_order(order, out / "order.parquet", about)
    with atomic_path(out / "duplicates.csv") as temporary:
        duplicates.to_csv(temporary, index=False)
    about["duplicates"] = count_duplicates(duplicates)
    about["split_known"] = bool(duplicates["held_out"].notna().all())
    about["seconds"] = {"embedding": found.seconds, "order": round(time.monotonic() - clock, 2)}
    _say(f"drawing panels ({len(rows):,} images)")
    folder = out / "panels"
    pictures = sort_pictures.draw(cfg, order, duplicates, readable, lambda ids: store[rows[ids]], folder, built.used)
    about["seconds"]["total"] = round(time.monotonic() - started, 2)
    with atomic_path(out / "sort.json") as temporary:
        temporary.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    _report(about, order, out, pictures)
    return order


def _check(cfg: DictConfig) -> None:
    """Checks the settings before anything is read or written."""
    for key in ("out", "pixels.cache"):
        config.check_place(key, cfg.out if key == "out" else cfg.pixels.cache)
    for key in ("data", "lpips", "words", "duplicates", "split", "pixels", "slices"):
        if not isinstance(cfg[key], DictConfig):
            raise ConfigError(f"{key}={cfg[key]} is a value where a section belongs", f"set its keys: {key}.<key>=...")
    for key in ("network", "embeddings", "start"):
        config.check_type(key, cfg[key], "Path | None")
    config.check_type("pixels.size", cfg.pixels.size, "int | None")
    config.check_type("words.stage", cfg.words.stage, "int")
    config.check_out(cfg.out, cfg.data)
    embedding.kind_of(cfg)
    for key, low, high in (("panels", 0, 1000), ("seed", 0, 2**31), ("batch_size", 1, 100_000)):
        config.check_type(key, cfg[key], "int")
        check_range(key, cfg[key], low, high)
    config.check_type("effort", cfg.effort, "float")
    check_range("effort", cfg.effort, 0, 10_000)
    if cfg.duplicates.threshold != "auto":
        config.check_type("duplicates.threshold", cfg.duplicates.threshold, "float")
        check_range("duplicates.threshold", cfg.duplicates.threshold, 0, 1e9)
    config.check_type("words.count", cfg.words.count, "int")
    check_range("words.count", cfg.words.count, 2, 100_000)


def _device(cfg: DictConfig) -> str:
    import torch

    wanted = str(cfg.device)
    check_choice("device", wanted.split(":")[0], ("auto", "cpu", "cuda"))
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={wanted}: there is no GPU that torch can use", "device=cpu")
    return wanted


def arrange(cfg: DictConfig, x: np.ndarray, neighbours: Neighbours, table: pd.DataFrame) -> pd.DataFrame:
    """Orders all images, and those of each label by themselves.

    Args:
        cfg: ``effort``, ``seed`` and ``start``.
        x: ``N,D`` points.
        neighbours: of all of them.
        table: sample table of the N images.

    Returns:
        The order, still without the groups of near-duplicates.
    """
    n = len(x)
    _say(f"ordering {n:,} images")
    start = None
    if cfg.start:
        before = read_order(cfg.start, table.index, "start", partial=True)
        places = before["position"].reindex(table.index).to_numpy(dtype=float)
        start = insert_new(places, neighbours)
    options: dict[str, Any] = {"effort": float(cfg.effort), "seed": int(cfg.seed)}
    path = seriate(x, start=start, neighbours=neighbours, **options) if n else np.arange(0)
    place = np.empty(n, np.int64)
    place[path] = np.arange(n)
    label_place, label_unlike = np.full(n, -1, np.int64), np.full(n, np.nan)
    codes, names = pd.factorize(table["label"])
    count = Countdown("ordering labels", len(names))
    for code in range(len(names)):
        rows = np.flatnonzero(codes == code)
        if len(rows) < n:
            within = seriate(x[rows], **options)
            label_unlike[rows] = outlier_score(x[rows])
        else:
            within, label_unlike[rows] = path, outlier_score(x, neighbours=neighbours)
        label_place[rows[within]] = np.arange(len(rows))
        count(code + 1, len(names))
    order = pd.DataFrame(
        {
            "sample_id": table.index.to_numpy(),
            "label": table["label"].to_numpy(),
            "position": place,
            "label_position": label_place,
            "outlier_score": outlier_score(x, neighbours=neighbours),
            "label_outlier_score": label_unlike,
        }
    )
    return order


def _path_figures(x: np.ndarray, order: pd.DataFrame) -> dict[str, Any]:
    """Returns the mean step, and its ratio to that of the order in which the images came."""
    if len(x) < 2:
        return {"mean_step": 0.0, "of_given_order": 1.0, "of_random_order": 1.0}
    mean = float(path_steps(x, order["position"].to_numpy().argsort()).mean())
    given = float(path_steps(x, np.arange(len(x))).mean())
    random = float(path_steps(x, np.random.default_rng(0).permutation(len(x))).mean())
    ratios = {"of_given_order": mean / given if given else 1.0, "of_random_order": mean / random if random else 1.0}
    return {"mean_step": mean, **{key: round(value, 4) for key, value in ratios.items()}}


def count_duplicates(duplicates: pd.DataFrame) -> dict[str, int]:
    """Returns how many groups and images there are, and how many groups bear different labels or cross the split."""
    first = duplicates.drop_duplicates("duplicate_group")
    return {
        "groups": len(first),
        "images": len(duplicates),
        "identical": int((duplicates["kind"] == "identical").sum()),
        "groups_with_different_labels": int(first["labels_differ"].sum()),
        "groups_across_the_split": int(first["crosses_split"].sum()),
    }


def _say(words: str) -> None:
    log.info("%s", words)


def _report(about: dict[str, Any], order: pd.DataFrame, out: Path, pictures: list[Path]) -> None:
    labels = int(order["label"].nunique())
    lines = [f"sorted     {about['images']:,} images{f' of {labels} labels' if labels else ''} by {about['used']} "
             f"({duration(about['seconds']['total'])})"]  # fmt: skip
    if "projection" in about:
        told = about["projection"]
        lines.append(f"projected  {told['from']:,} numbers an image to {told['to']}: squared distances off by "
                     f"{told['squared_distance_error_mean']:.1%} on the mean, {told['nearest_10_kept']:.0%} of the 10 "
                     "nearest stay")  # fmt: skip
    lines.append(f"order      {out / 'order.parquet'}: a step to the next image is "
                 f"{about['path']['of_random_order']:.2f} of one at random")  # fmt: skip
    told = about["duplicates"]
    if told["groups"]:
        lines.append(f"duplicates {told['groups']:,} groups of {told['images']:,} images ({told['identical']:,} "
                     f"identical): {told['groups_with_different_labels']:,} groups bear different labels, "
                     + (f"{told['groups_across_the_split']:,} lie on both sides of the split" if about["split_known"]
                        else "which lie on both sides of the split is not known"))  # fmt: skip
        lines.append(f"           {out / 'duplicates.csv'}")
    else:
        lines.append("duplicates none")
    if about["unreadable"]:
        lines.append(f"unreadable {about['unreadable']:,} images, left out")
    if pictures:
        lines.append(f"pictures   {pictures[0]} and {len(pictures) - 1} more beside it")
    print("\n".join(lines), flush=True)
