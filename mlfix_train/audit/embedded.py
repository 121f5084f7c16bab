"""Embedded images as evidence: a linear layer fitted out of fold, the votes of similar images, an order, duplicates.

Shapes: N samples, M of them with an image and a label, D features, E dimensions of the embeddings, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from mlfix_train.audit.predictions.features import read_features
from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.predictions.runs import AuditedRuns, ProgressFactory, RunData, no_progress
from mlfix_train.audit.scores import pooling
from mlfix_train.audit.scores.knn import NeighbourScores, neighbours_needed, score_neighbours
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.similarity.near_duplicates import find_near_duplicates, near_duplicate_threshold
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.order_files import read_embeddings, read_order
from mlfix_train.audit.similarity.pipeline import EmbeddedImages, embed_and_search, embed_features, order_images
from mlfix_train.data.pixels.store import PixelStore
from mlfix_train.data.splits import stratified_parts
from mlfix_train.errors import DataError
from mlfix_train.models.backbones import efficientnet_lite0 as lite0
from mlfix_train.models.embedding.base import Embedder
from mlfix_train.models.linear_probe import OutOfFoldProbe

log = logging.getLogger(__name__)

PRETRAINED_HINT = 'pip install "mlfix-train[pretrained]" brings a pretrained network'
N_FOLDS = 5
N_PERTURBED = 64
"""Images whose perturbed copies tell how near near-duplicates are."""


@dataclass(frozen=True)
class EmbeddedSamples:
    """Images of a sample table, embedded once.

    Attributes:
        rows: int64 ``(M,)``, rows of the sample table that have an image.
        features: float ``(M, D)``, for the linear layer.
        found: embeddings ``(M, E)`` and the nearest neighbours of each.
        used: what they were embedded by, for reports.
        learned: whether a network learned the features, so that a linear layer on them is worth fitting beside runs.
    """

    rows: np.ndarray
    features: np.ndarray
    found: EmbeddedImages
    used: str
    learned: bool = True


def embed_samples(
    samples: pd.DataFrame,
    pixels: PixelStore,
    embedder: Embedder,
    *,
    folder: Path | None = None,
    bfloat16: bool = False,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddedSamples:
    """Embeds all images that can be read, and finds the neighbours of each.

    Args:
        samples: sample table.
        pixels: its images, rows as in the table.
        embedder: turns images into features and embeddings; it is fitted here.
        folder: keeps the features, see :func:`mlfix_train.audit.similarity.pipeline.embed_features`.
        bfloat16: compute features in bfloat16 if the embedder supports it.
        device: where neighbours are searched.
        seed: of what is sampled.
        progress: called with (images embedded, images in all).

    Raises:
        DataError: No image can be read, or all are embedded alike.
    """
    rows = np.flatnonzero(~samples.index.isin(pixels.unreadable))
    if len(rows) < 3:
        raise DataError(f"{len(rows)} of {len(samples):,} images can be read", "an audit needs three or more")
    options = {"folder": folder, "bfloat16": bfloat16, "seed": seed, "progress": progress}
    features = embed_features(pixels, rows, embedder, **options)  # type: ignore[arg-type]
    blocks = range(0, len(rows), 8192)
    embeddings = np.concatenate([embedder.project(np.asarray(features[i : i + 8192], np.float32)) for i in blocks])
    if float(embeddings.std(0).max()) < 1e-7:
        raise DataError("all images are embedded alike", "check that they are different pictures")
    neighbours = nearest_neighbours(embeddings, _count(samples, rows), device, seed=seed)
    return EmbeddedSamples(rows, features, EmbeddedImages(embeddings, neighbours, ""), embedder.name)


def given_embeddings(samples: pd.DataFrame, embeddings: np.ndarray, used: str = "the embeddings") -> EmbeddedSamples:
    """Returns the same for embeddings that exist, float ``(N, D)``, one row per sample."""
    rows = np.arange(len(samples))
    neighbours = nearest_neighbours(embeddings, _count(samples, rows))
    return EmbeddedSamples(rows, embeddings, EmbeddedImages(np.asarray(embeddings, np.float32), neighbours, ""), used)


def read_order_embeddings(order: str | Path, samples: pd.DataFrame) -> EmbeddedSamples:
    """Reads the embeddings of ``mlfix sort`` from its output directory.

    Raises:
        DataError: No order, or one of other samples.
    """
    path = Path(order).expanduser()
    folder = path if path.is_dir() else path.parent
    found = read_order(path, samples.index, partial=True)
    stored = pd.Index(pd.read_parquet(folder / "order.parquet", columns=["sample_id"])["sample_id"])
    embeddings = read_embeddings(folder / "embeddings.npy", len(stored), "order")[stored.get_indexer(found.index)]
    used = str(found.attrs.get("used", "the embeddings of the order"))
    embedded = given_embeddings(samples.loc[found.index], embeddings, used)
    return replace(embedded, rows=samples.index.get_indexer(found.index), learned=False)


def embed_pixels(
    samples: pd.DataFrame, pixels: PixelStore, progress: Callable[[int, int], None] | None = None
) -> EmbeddedSamples:
    """Compares images by their pixels, which needs no network."""
    from mlfix_train.models.embedding.pixels import PixelEmbedder

    rows = np.flatnonzero(~samples.index.isin(pixels.unreadable))
    if len(rows) < 3:
        raise DataError(f"{len(rows)} of {len(samples):,} images can be read", "an audit needs three or more")
    found = embed_and_search(pixels, rows, PixelEmbedder(), n_neighbours=_count(samples, rows), progress=progress)
    return EmbeddedSamples(rows, found.embeddings, found, "the pixels", learned=False)


def _count(samples: pd.DataFrame, rows: np.ndarray) -> int:
    return neighbours_needed(group_codes(samples["group"].iloc[rows]))


def group_codes(groups: pd.Series) -> np.ndarray | None:
    """Returns groups as codes, int64; ``None`` if every sample is its own group."""
    codes = pd.factorize(groups)[0]
    return codes if len(codes) and codes.max() + 1 < len(codes) else None


def label_codes(samples: pd.DataFrame, class_names: list[str]) -> np.ndarray:
    """Returns labels as indices into ``class_names``, int64 ``(N,)``; -1 for others and for none."""
    return pd.Index(class_names).get_indexer(pd.Index(samples["label"].fillna("").to_numpy(dtype=object)))


def has_pretrained() -> bool:
    """Returns whether a pretrained network is at hand without a model hub."""
    return lite0.has_package()


def load_default_embedder() -> Embedder:
    """Returns the pretrained network that is at hand, see :mod:`mlfix_train.models.embedding.pretrained`."""
    from mlfix_train.models.embedding.pretrained import load_pretrained

    return load_pretrained()


def predict_out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Predicts labels by a linear layer on features, fitted on the other folds.

    It is fitted twice, the second time without the labels that confident learning doubts after the first (Northcutt,
    Jiang and Chuang, "Confident learning", 2021: learning with pruned labels).

    Args:
        features: float ``(N, D)``.
        labels: int64 ``(N,)``, given labels.
        n_classes: C.
        groups: int64 ``(N,)``, photo or track of each; all samples of a group are in one fold.
        seed: of the folds.
        device: where it computes.
        progress: called with (fits done, fits in all).

    Returns:
        Logits, float32 ``(N, C)``; higher is likelier.

    Raises:
        DataError: Features that are NaN or all alike, or fewer than two groups or labels.
    """
    if len(np.unique(labels)) < 2:
        raise DataError("all samples have the same label, so none can be told wrong", "audit two or more labels")
    units = np.arange(len(labels)) if groups is None else groups
    n_folds = min(N_FOLDS, len(np.unique(units)))
    if n_folds < 2:
        raise DataError("all samples are of one group, so none can be held out", "use two or more groups, or none")
    folds = stratified_parts(labels.astype(str), units, np.full(n_folds, 1 / n_folds), seed)
    folds = np.unique(folds, return_inverse=True)[1]
    probe = OutOfFoldProbe(features, labels, n_classes, folds, device)
    report = progress or (lambda done, total: None)
    first = probe.fit()
    report(1, 2)
    pool = pooling.pool_predictions({"probe": pooling.of_logits(first.logits)}, labels, n_classes)
    log.debug(
        "linear layer: strength %g, %.4f nats, %d labels left out", first.strength, first.loss, pool.doubted.sum()
    )
    logits = first.logits
    if pool.doubted.any():
        logits = probe.fit(~pool.doubted, first.strength).logits
    report(2, 2)
    return logits


def probe_logits(
    embedded: EmbeddedSamples,
    samples: pd.DataFrame,
    class_names: list[str],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts the labels of embedded samples out of fold.

    Returns:
        Rows of the sample table that have a label and an image, int64 ``(M,)``, and their logits, float32 ``(M, C)``.
    """
    codes = label_codes(samples.iloc[embedded.rows], class_names)
    known = np.flatnonzero(codes >= 0)
    rows = embedded.rows[known]
    groups = group_codes(samples["group"].iloc[rows])
    features = embedded.features if len(known) == len(codes) else embedded.features[known]
    return rows, predict_out_of_fold(features, codes[known], len(class_names), groups, progress=progress)


def neighbour_scores(embedded: EmbeddedSamples, samples: pd.DataFrame, class_names: list[str]) -> NeighbourScores:
    """Scores the labels of embedded samples by those of their nearest neighbours, rows as in ``embedded``."""
    table = samples.iloc[embedded.rows]
    return score_neighbours(embedded.found.neighbours, label_codes(table, class_names), group_codes(table["group"]))


def order_samples(
    embedded: EmbeddedSamples,
    samples: pd.DataFrame,
    pixels: PixelStore,
    embedder: Embedder | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Puts embedded samples in visual order and finds near-duplicates.

    Returns:
        The order, with the columns of :mod:`mlfix_train.audit.similarity.order_files` and indexed by ``sample_id``, and
        the near-duplicates, see :func:`mlfix_train.audit.similarity.near_duplicates.duplicates_table`.
    """
    table = samples.iloc[embedded.rows]
    order = order_images(embedded.found, table, progress=progress)
    threshold = (
        0.0 if embedder is None else near_duplicate_threshold(pixels, embedded.rows, embedder, count=N_PERTURBED)
    )
    order["duplicate_group"], duplicates = find_near_duplicates(
        pixels, embedded.rows, embedded.found.neighbours, table, threshold
    )
    return order.set_index("sample_id", drop=False), duplicates


def run_probe_logits(
    runs: AuditedRuns, held: HeldOut, groups: np.ndarray | None = None, progress: ProgressFactory = no_progress
) -> np.ndarray | None:
    """Predicts labels by linear layers on the features that runs kept of the samples they held out.

    The networks of different runs compute different features, so each run gets a linear layer of its own, fitted out of
    fold among the samples that it held out.

    Args:
        runs: finished runs; those without features are passed over.
        held: their held-out predictions.
        groups: int64 ``(N,)``, photo or track of each sample of ``held``.
        progress: shows the fits.

    Returns:
        Log-probabilities, float32 ``(N, C)``, averaged over runs; 0 for samples without features. ``None`` if no run
        kept features of two or more labels.

    Raises:
        DataError: Features that can't be read, or of other samples than the predictions.
    """
    total = np.zeros((len(held), len(held.class_names)), np.float32)
    counts, fitted = np.zeros(len(held), np.int64), 0
    report = progress("fitting linear layers on the runs' features")
    for done, run in enumerate(runs.directories, start=1):
        ids = pd.read_parquet(run.predictions, columns=["sample_id"])["sample_id"]
        features = read_features(run.path, len(ids))
        if features is None:
            continue
        rows = held.rows_of(ids)
        labels, units = held.labels[rows].astype(np.int64), None if groups is None else groups[rows]
        if len(np.unique(labels)) < 2 or len(np.unique(rows if units is None else units)) < 2:
            continue
        logits = predict_out_of_fold(np.asarray(features, np.float32), labels, len(held.class_names), units)
        total[rows] += logits - logsumexp(logits, axis=1, keepdims=True)
        counts[rows] += 1
        fitted += 1
        report(done, len(runs.directories))
    if not fitted:
        return None
    return total / np.maximum(counts, 1)[:, None].astype(np.float32)


def embed_images(
    samples: pd.DataFrame,
    pixels: PixelStore,
    embedder: Embedder | None,
    folder: str | Path | None,
    bfloat16: bool,
    progress: ProgressFactory,
) -> EmbeddedSamples:
    """Embeds images by a network, or by their pixels."""
    step = progress("embedding images")
    if embedder is None:
        log.warning("images are compared by their pixels, which says little about photos: %s", PRETRAINED_HINT)
        return embed_pixels(samples, pixels, step)
    log.info("embedding images by %s", embedder.name)
    place = None if folder is None else Path(folder).expanduser()
    return embed_samples(samples, pixels, embedder, folder=place, bfloat16=bfloat16, progress=step)


def embed_run_images(
    by: str,
    data: RunData,
    order: str | Path | None,
    embedder: Embedder | None,
    folder: str | Path | None,
    bfloat16: bool,
    progress: ProgressFactory,
) -> EmbeddedSamples | None:
    """Embeds the images of runs; ``None`` if there are none to embed, or too few."""
    if by == "auto":
        without_network = "pixels" if order is None else "order"
        by = "pretrained" if embedder is not None or has_pretrained() else without_network
        if data.pixels is None:
            by = "none" if order is None else "order"
    if by == "order" and order is not None and data.samples is not None:
        return read_order_embeddings(order, data.samples)
    if by == "none" or data.pixels is None or data.samples is None:
        return None
    if len(data.samples) - len(data.pixels.unreadable) < 3:
        return None
    if by == "pixels":
        return embed_pixels(data.samples, data.pixels, progress("embedding images"))
    return embed_images(data.samples, data.pixels, embedder or load_default_embedder(), folder, bfloat16, progress)


def with_images(
    evidence: Evidence,
    samples: pd.DataFrame,
    found: EmbeddedSamples | None,
    progress: ProgressFactory,
    trained_here: bool = True,
) -> Evidence:
    """Returns evidence with what samples, groups and embedded images add to it.

    Args:
        evidence: of held-out samples.
        samples: sample table.
        found: its embedded images.
        progress: shows the fit of the linear layer.
        trained_here: whether the predictions are of models that learned from these samples alone.
    """
    held = evidence.held_out
    table = samples.loc[held.sample_ids]
    unlearned = None
    if trained_here:
        unlearned = (table["label"].map(samples.groupby("label")["group"].nunique()) < 2).to_numpy()
    evidence = replace(evidence, samples=table, groups=group_codes(table["group"]), unlearned=unlearned)
    if found is None or len(found.rows) < 3:
        return evidence
    rows = samples.index[found.rows].get_indexer(held.sample_ids)
    scores = neighbour_scores(found, samples, held.class_names).take(rows)
    evidence = replace(evidence, neighbours=scores)
    if not found.learned or evidence.predictor == "probe":
        return evidence
    known, logits = probe_logits(found, samples, held.class_names, progress("fitting a linear layer"))
    place = pd.Index(samples.index[known]).get_indexer(held.sample_ids)
    own = np.where(place[:, None] < 0, 0.0, logits[place]).astype(np.float32)  # no image: all labels are as likely
    return replace(evidence, probe_logits=own)
