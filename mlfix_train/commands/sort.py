"""``mlfix sort``: images in visual order, with their embeddings, outliers and near-duplicates."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting.sort_pictures import draw_sort, slice_rows
from mlfix_train.audit.similarity import order_files, pipeline
from mlfix_train.audit.similarity.near_duplicates import (
    count_duplicates,
    find_near_duplicates,
    near_duplicate_threshold,
)
from mlfix_train.audit.similarity.seriation import summarize_path
from mlfix_train.commands.embedders import build_embedder, computes_in_bfloat16, select_device
from mlfix_train.commands.inputs import check_out, draw_configured_split, read_samples
from mlfix_train.commands.progress import ProgressBar, format_duration
from mlfix_train.config.sort import SortConfig
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.pixels.sizes import stored_size
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.errors import DataError
from mlfix_train.models.embedding.base import Embedder
from mlfix_train.models.embedding.lpips import LpipsEmbedder, check_size, load_trunk, network_features
from mlfix_train.models.embedding.network import NetworkEmbedder, load_encoder
from mlfix_train.models.embedding.pixels import PixelEmbedder
from mlfix_train.models.embedding.visual_words import VisualWordsEmbedder

log = logging.getLogger(__name__)

DEFAULT_SIZE = 40
"""Side of the images, px, if neither ``pixels.size`` nor a network sets it."""


def run(cfg: SortConfig) -> pd.DataFrame:
    """Sorts images.

    Returns:
        The order, see :mod:`mlfix_train.audit.similarity.order_files`; it, the embeddings, near-duplicates and panels
        are also written below ``out``.
    """
    started = time.monotonic()
    out, device = check_out(cfg.out, cfg.data), select_device(cfg.device)
    table = read_samples(cfg.data, uses_labels=False)
    embedder = None if cfg.kind == "embeddings" else _build_embedder(cfg, device)
    size = (embedder.image_size if embedder else None) or DEFAULT_SIZE
    if cfg.kind == "pretrained" and not cfg.has_own_embedder and cfg.pixels.size is None:
        size = stored_size(table, size)
    spec = cfg.pixels.spec(size)
    cache, max_unreadable = Path(cfg.pixels.cache).expanduser(), cfg.pixels.max_unreadable
    with ProgressBar("decoding images") as progress:
        store = open_store(table, spec, cache, max_unreadable=max_unreadable, progress=progress)
    rows = np.flatnonzero(~table.index.isin(store.unreadable))
    if not len(rows):
        raise DataError("none of the images can be read", "replace them, or set data.root to other images")
    readable, initial = table.iloc[rows], cfg.initial_order
    previous = order_files.read_order(initial, readable.index, "initial_order", partial=True) if initial else None
    slice_rows(readable["label"], cfg.slices)  # raises before the long work

    clock = time.monotonic()
    found = _embed(cfg, embedder, store, rows, readable.index, device)
    seconds = {"embedding": time.monotonic() - clock}
    clock = time.monotonic()
    log.info("ordering %s images", f"{len(rows):,}")
    options: dict[str, Any] = {"previous": previous, "search_effort": cfg.search_effort, "seed": cfg.seed}
    with ProgressBar("ordering labels") as progress:
        order = pipeline.order_images(found, readable, progress=progress, **options)
    threshold = cfg.duplicates.threshold
    if isinstance(threshold, str):  # auto
        threshold = 0.0 if embedder is None else near_duplicate_threshold(store, rows, embedder, cfg.seed)
    held_out = _draw_split(cfg, table)
    order["duplicate_group"], duplicates = find_near_duplicates(
        store, rows, found.neighbours, readable, threshold, None if held_out is None else held_out[rows]
    )
    seconds["order"] = time.monotonic() - clock
    summary: dict[str, Any] = {
        "used": embedder.name if embedder else f"embeddings of {cfg.embeddings}",
        "images": len(rows),
        "unreadable": len(table) - len(rows),
        "samples": order_files.samples_fingerprint(readable.index),
        "pixels": store.fingerprint,
        "key": found.key,
        "neighbour_recall": round(found.neighbours.recall, 4),
        **(embedder.notes if embedder else {}),
        "threshold": threshold,
        "path": summarize_path(found.embeddings, np.argsort(order["position"].to_numpy())),
    }
    order_files.write_order(order, out / "order.parquet", summary)
    with atomic_path(out / "duplicates.csv") as temporary:
        duplicates.to_csv(temporary, index=False)
    log.info("drawing panels")
    drawn: dict[str, Any] = {"embedding": summary["used"], "slices": cfg.slices, "n_panels": cfg.n_panels}
    pictures = draw_sort(order, duplicates, lambda numbers: store[rows[numbers]], out / "panels", **drawn)
    seconds["total"] = time.monotonic() - started
    summary["duplicates"] = count_duplicates(duplicates)
    summary["split_known"] = held_out is not None
    summary["seconds"] = {key: round(value, 2) for key, value in seconds.items()}
    with atomic_path(out / "sort.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    _print_summary(summary, order, out, pictures)
    return order


def _embed(
    cfg: SortConfig, embedder: Embedder | None, store: PixelStore, rows: np.ndarray, ids: pd.Index, device: str
) -> pipeline.EmbeddedImages:
    """Embeds images, or reads given embeddings, and finds their neighbours."""
    out = Path(cfg.out).expanduser()
    if embedder is None:
        given = order_files.read_embeddings(Path(str(cfg.embeddings)).expanduser(), len(rows), ids=ids)
        order_files.write_embeddings(given, out / "embeddings.npy")
        return pipeline.search_embeddings(given, device=device, seed=cfg.seed)
    bfloat16 = computes_in_bfloat16(device)
    options: dict[str, Any] = {"batch_size": cfg.batch_size, "bfloat16": bfloat16, "device": device}
    with ProgressBar("embedding images") as progress:
        return pipeline.embed_and_search(store, rows, embedder, folder=out, seed=cfg.seed, progress=progress, **options)


def _build_embedder(cfg: SortConfig, device: str) -> Embedder:
    if cfg.has_own_embedder or cfg.kind == "pretrained":
        return build_embedder(cfg.embedder, device, cfg.width)
    if cfg.kind == "pixels":
        return PixelEmbedder(cfg.width, device)
    trained = load_encoder(cfg.network, device) if cfg.network else None
    if cfg.kind == "lpips":
        if trained is None:
            check_size(cfg.lpips.trunk, cfg.lpips.size or cfg.pixels.size or DEFAULT_SIZE)
        features = network_features(trained) if trained else load_trunk(cfg.lpips.trunk, cfg.lpips.weights)
        return LpipsEmbedder(features, cfg.lpips, cfg.width, device)
    assert trained is not None  # SortConfig checks it
    if cfg.kind == "network":
        return NetworkEmbedder(trained, cfg.width, device)
    return VisualWordsEmbedder(trained, cfg.visual_words, cfg.width, device)


def _draw_split(cfg: SortConfig, table: pd.DataFrame) -> np.ndarray | None:
    """Returns which samples ``mlfix train`` would hold out, or ``None`` if the data cannot be split."""
    if table["label"].isna().any():
        if table["label"].notna().any():
            log.warning("some images have no label: near-duplicates across the split are not reported")
        return None
    try:
        return draw_configured_split(cfg.split, table, cfg.data)
    except DataError as error:
        log.warning("near-duplicates across the split are not reported: %s", error.problem)
        return None


def _print_summary(summary: dict[str, Any], order: pd.DataFrame, out: Path, pictures: list[Path]) -> None:
    labels = order["label"].nunique()
    images = f"{summary['images']:,} images{f' of {labels} labels' if labels else ''}"
    print(f"sorted     {images} by {summary['used']} ({format_duration(summary['seconds']['total'])})")
    if "projection" in summary:
        projection = summary["projection"]
        print(
            f"projected  {projection['from']:,} features to {projection['to']:,}: mean error of squared distances "
            f"{projection['squared_distance_error_mean']:.1%}, {projection['nearest_10_kept']:.0%} of 10 nearest kept"
        )
    ratio = summary["path"]["of_random_order"]
    print(f"order      {out / 'order.parquet'}: mean step to the next image {ratio:.2f} of that in a random order")
    duplicates = summary["duplicates"]
    if duplicates["groups"]:
        split = f"{duplicates['groups_across_the_split']:,} are on both sides of the split"
        print(
            f"duplicates {duplicates['groups']:,} groups of {duplicates['images']:,} images "
            f"({duplicates['identical']:,} identical): {duplicates['groups_with_different_labels']:,} have different "
            f"labels, {split if summary['split_known'] else 'which are on both sides of the split is not known'}"
        )
        print(f"           {out / 'duplicates.csv'}")
    else:
        print("duplicates none")
    if summary["unreadable"]:
        print(f"unreadable {summary['unreadable']:,} images, left out")
    print(f"pictures   {pictures[0]} and {len(pictures) - 1} more in the same folder", flush=True)
