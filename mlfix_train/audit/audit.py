"""The audit: from predictions to a ranking of suspicious labels, an estimate of how many are wrong, and slices.

    audit = Audit.from_runs("outputs/baseline")
    audit.ranking, audit.estimate
    audit.report("report.html")

Shapes: N samples, C classes, D dimensions.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlfix_train.audit import neighbour_evidence
from mlfix_train.audit.predictions.held_out import HeldOut, merge_runs
from mlfix_train.audit.predictions.runs import (
    AuditedRuns,
    ProgressFactory,
    RunData,
    load_runs,
    match_ids,
    mean_aum,
    mean_probabilities,
    no_progress,
    open_run_data,
)
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.scores.estimates import Estimate
from mlfix_train.audit.scores.knn import NeighbourScores
from mlfix_train.audit.scores.label_scores import check_probabilities
from mlfix_train.audit.scores.ranking import Ranking, rank, write_ranking
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.scores.slices import Slice, SliceSpec, rank_slices, select_slices, write_slices
from mlfix_train.audit.similarity.order_files import read_order
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.pixels.spec import PixelsConfig, PixelSpec
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.samples import COLUMNS as SAMPLE_COLUMNS
from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError, check_choice

if TYPE_CHECKING:
    from mlfix_train.audit.reporting.pictures import Picture

log = logging.getLogger(__name__)

Images = PixelStore | np.ndarray
NEIGHBOUR_SOURCES = ("auto", "order", "pixels", "none")
SMALLEST_PROBABILITY = 1e-38
"""Probabilities are raised to this before their logarithm is taken."""


class Audit:
    """An audit of given labels. Make one by :meth:`from_runs` or :meth:`from_predictions`.

    Args:
        evidence: what the labels are judged by.
        samples: sample table, which may hold more samples than were held out.
        pixels: images, rows as in ``samples``: a pixel store, or uint8 ``(N, H, W, 3)``.
        order: visual order of the samples, as read by :func:`mlfix_train.audit.similarity.order_files.read_order`.
        slices: the user's slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
        title: in headlines.
        about: further facts for ``audit.json``.

    Attributes:
        ranking: see :mod:`mlfix_train.audit.scores.ranking`, most suspicious first.
        estimate: how many labels are wrong and how far to review; ``None`` with one kind of evidence or few samples.
        slices: pairs of labels, labels, the user's slices and near-duplicates, most suspicious first.
        kinds: kinds of evidence that were combined.
        seconds: time that each step took.

    Example:
        >>> import numpy as np
        >>> from mlfix_train import Audit
        >>> labels = ["cat", "cat", "dog", "dog"]
        >>> pred_probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]])
        >>> audit = Audit.from_predictions(labels, pred_probs, sample_ids=["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
        >>> audit.ranking[["sample_id", "given_label", "suggested_label"]].iloc[0].tolist()
        ['b.jpg', 'cat', 'dog']
        >>> audit.to_csv("ranking.csv").name
        'ranking.csv'
    """

    def __init__(
        self,
        evidence: Evidence,
        *,
        samples: pd.DataFrame | None = None,
        pixels: Images | None = None,
        order: pd.DataFrame | None = None,
        slices: Mapping[str, SliceSpec] | None = None,
        title: str = "audit",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        started = time.monotonic()
        self.evidence, self.samples, self.pixels, self.order = evidence, samples, pixels, order
        self.title, self._about = title, dict(about or {})
        result: Ranking = rank(evidence)
        self.ranking, self.kinds, self.confident_issues = result.table, result.kinds, result.confident_issues
        self.estimate: Estimate | None = result.estimate
        self.slices: list[Slice] = self._rank_slices(slices or {})
        self.seconds: dict[str, float] = {"ranking": round(time.monotonic() - started, 2)}

    @classmethod
    def from_predictions(
        cls,
        labels: Sequence[Any] | np.ndarray,
        pred_probs: np.ndarray,
        embeddings: np.ndarray | None = None,
        groups: Sequence[Any] | np.ndarray | None = None,
        images: Images | Sequence[str | Path] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        sample_ids: Sequence[str] | None = None,
        slices: Mapping[str, SliceSpec] | None = None,
        title: str = "audit",
    ) -> Audit:
        """Audits labels by the out-of-sample probabilities of any model.

        Args:
            labels: ``(N,)``, given labels: indices into the columns of ``pred_probs``, or names.
            pred_probs: float ``(N, C)``, probabilities by models that did not train on the sample; the columns of a
                DataFrame name the classes.
            embeddings: float ``(N, D)``, for evidence by nearest neighbours, which an estimate needs.
            groups: ``(N,)``, photo, track or patient of each sample; samples of one group are not independent.
            images: uint8 ``(N, H, W, 3)``, a pixel store, or N image files (decoded to 64 px into ``.pixels``).
            class_names: names of the C columns; by default the sorted label names, or the column numbers.
            sample_ids: N unique names; by default the image files, or row numbers.
            slices: your own slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
            title: in headlines.

        Raises:
            DataError: Arrays of different lengths, unknown labels, or rows that are not probability distributions.
        """
        if isinstance(pred_probs, pd.DataFrame):
            class_names = [str(name) for name in pred_probs.columns] if class_names is None else class_names
        pred_probs = check_probabilities(np.asarray(pred_probs), "pred_probs")
        n, n_classes = pred_probs.shape
        sizes = {"labels": labels, "embeddings": embeddings, "groups": groups, "images": images}
        for name, values in {**sizes, "sample_ids": sample_ids}.items():
            if values is not None and len(values) != n:
                raise DataError(f"{name} has {len(values):,} rows, pred_probs {n:,}", "pass one row per sample")
        codes, names = _encode_labels(labels, n_classes, class_names)
        paths = [str(path) for path in images] if images is not None and not hasattr(images, "shape") else None
        ids = list(sample_ids) if sample_ids is not None else paths or [str(row) for row in range(n)]
        given = [names[code] for code in codes]
        own_groups = None if groups is None else [str(group) for group in groups]
        samples = make_table(ids, paths or ids, given, own_groups, source="the samples")
        logits = np.log(np.maximum(np.asarray(pred_probs, np.float64), SMALLEST_PROBABILITY))
        held = merge_runs([predictions_table(ids, codes, logits, names)], names)
        scores = None
        if embeddings is not None:
            scores = neighbour_evidence.score_by_neighbours(embeddings, samples.index, samples, held)
        codes_of_groups = neighbour_evidence.group_codes(samples["group"])
        evidence = Evidence(held, None, scores, pred_probs[:, np.argsort(names)], codes_of_groups, samples)
        pixels: Any = images if paths is None else open_store(samples, PixelSpec(64), PixelsConfig.cache)
        about = {"neighbours": "" if embeddings is None else "the embeddings"}
        return cls(evidence, samples=samples, pixels=pixels, slices=slices, title=title, about=about)

    @classmethod
    def from_runs(
        cls,
        runs: str | Path | Sequence[str | Path] | AuditedRuns,
        *,
        labels: str | Path | None = None,
        samples: pd.DataFrame | None = None,
        pixels: PixelsConfig | None = None,
        order: str | Path | None = None,
        neighbours: str = "auto",
        slices: Mapping[str, SliceSpec] | None = None,
        title: str | None = None,
        about: Mapping[str, Any] | None = None,
        progress: ProgressFactory = no_progress,
    ) -> Audit:
        """Audits the samples that finished runs held out, by all the evidence the runs left.

        Args:
            runs: a run directory of ``mlfix train``, a directory of runs, the folder of an :class:`AuditCallback
                <mlfix_train.audit.callback.AuditCallback>`, files of predictions (see
                :func:`mlfix_train.audit.predictions.files.open_predictions`), a glob, or several of these.
            labels: file of the given labels, for predictions that are a matrix (``pred_probs.npy``).
            samples: sample table with images and groups; by default that of the runs, and none for files.
            pixels: how the images are decoded; by default as for the runs, and to 64 px for files.
            order: output directory of ``mlfix sort``, for its embeddings and to show slices in its order.
            neighbours: how neighbours are found: ``order``, ``pixels``, ``none`` or ``auto`` (the order, else pixels).
            slices: your own slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
            title: in headlines; by default the name of the runs.
            about: further facts for ``audit.json``.
            progress: maps the description of a step to a callback that is called with (done, total).

        Raises:
            MlfixError: No finished runs, runs with different data or labels, or files that can't be used.
        """
        check_choice("neighbours", neighbours, NEIGHBOUR_SOURCES)
        if neighbours == "order" and order is None:
            raise ConfigError("neighbours=order needs order", "set order=<output folder of mlfix sort>")
        times = {"start": time.monotonic()}
        found = runs if isinstance(runs, AuditedRuns) else load_runs(runs, labels, progress)
        if samples is not None and found.files:
            match_ids(found.files.values(), samples)
        held = found.held_out(progress)
        times["predictions"] = time.monotonic()
        data = open_run_data(found, held, progress, samples, pixels)
        times["data"] = time.monotonic()
        places = None if order is None else _read_places(order, data, held)
        scores, used = _neighbour_scores(held, data, order, neighbours, progress)
        times["neighbours"] = time.monotonic()
        groups = None if data.samples is None else data.samples.loc[held.sample_ids, "group"]
        evidence = Evidence(
            held,
            aum=mean_aum(found, held),
            neighbours=scores,
            probabilities=mean_probabilities(found, held, progress),
            groups=None if groups is None else neighbour_evidence.group_codes(groups),
            samples=None if data.samples is None else data.samples.loc[held.sample_ids],
        )
        options: dict[str, Any] = {"samples": data.samples, "pixels": data.pixels, "order": places, "slices": slices}
        audit = cls(
            evidence, **options, title=title or found.title, about=_facts(found, data, order, used) | dict(about or {})
        )
        times["ranking"] = time.monotonic()
        laps = itertools.pairwise(times.items())
        audit.seconds = {step: round(end - start, 2) for (_, start), (step, end) in laps}
        return audit

    def _rank_slices(self, specs: Mapping[str, SliceSpec]) -> list[Slice]:
        metadata = None
        if self.samples is not None:
            metadata = self.samples.drop(columns=[name for name in SAMPLE_COLUMNS if name != "split"])
        given = self.ranking["given_label"].to_numpy(dtype=object)
        masks = select_slices(specs, given, pd.Index(self.ranking["sample_id"]), metadata)
        named = {name: mask for name, mask in masks.items() if name != "all" and not name.startswith("not ")}
        duplicates = None if self.order is None or self.samples is None else self.order["duplicate_group"]
        return rank_slices(self.ranking, named, duplicates)

    @cached_property
    def unranked(self) -> pd.DataFrame:
        """Samples that no run held out: columns ``sample_id``, ``given_label`` and ``reason``."""
        if self.samples is None:
            return pd.DataFrame(columns=["sample_id", "given_label", "reason"])
        ids = self.samples.index.difference(self.evidence.held_out.sample_ids, sort=False)
        unreadable = getattr(self.pixels, "unreadable", {})
        reasons = ["the image can't be read" if name in unreadable else "no run held it out" for name in ids]
        labels = self.samples.loc[ids, "label"].to_numpy()
        return pd.DataFrame({"sample_id": ids.to_numpy(), "given_label": labels, "reason": reasons})

    @cached_property
    def single_group_labels(self) -> list[str]:
        """Labels whose samples are all of one group: models that hold them out have never seen the label."""
        if self.samples is None:
            return []
        held = self.evidence.held_out
        n_groups = self.samples.groupby("label")["group"].nunique()
        return sorted(set(n_groups.index[n_groups < 2]) & {held.class_names[code] for code in np.unique(held.labels)})

    def images(self, sample_ids: Sequence[str]) -> np.ndarray:
        """Returns the pixels of samples, uint8 ``(n, H, W, 3)``; those that can't be read are grey."""
        if self.pixels is None or self.samples is None:
            raise DataError(f"{self.title} has no images", "pass images=, or audit runs whose data still exists")
        return np.asarray(self.pixels[self.samples.index.get_indexer(pd.Index(sample_ids))])

    @property
    def about(self) -> dict[str, Any]:
        """The content of ``audit.json``: counts, kinds of evidence, estimates."""
        held = self.evidence.held_out
        n_samples = len(held) if self.samples is None else len(self.samples)
        return {
            "runs": 1,
            "samples": n_samples,
            "ranked": len(self.ranking),
            "unranked": len(self.unranked),
            "labels": len(held.class_names),
            "evidence": self.kinds,
            "held_out_error": round(100 * float(held.disagreement.mean()), 3),
            "predicted_differently": int((held.predicted != held.labels).sum()),
            "issues": int(self.ranking["is_label_issue"].sum()),
            "confident_learning": self.confident_issues,
            "single_group_labels": self.single_group_labels,
            "label_names": held.class_names,
            "estimates": {} if self.estimate is None else self.estimate.to_dict(),
            "run_paths": [],
            "data": None,
            "images": None,
            "order": None,
            **self._about,
        }

    @property
    def notes(self) -> list[str]:
        """Caveats about the results, in sentences."""
        about, notes = self.about, []
        if about["unranked"]:
            notes.append(
                f"{about['unranked']:,} of {about['samples']:,} samples were held out by no run and are not ranked; "
                "unranked.csv lists them."
            )
        single = about["single_group_labels"]
        if single:
            names = ", ".join(single[:20]) + (" …" if len(single) > 20 else "")
            notes.append(
                "Labels with a single sample or group, which no model could learn before predicting it: "
                f"{names}. Their suspicion means little."
            )
        if self.pixels is None:
            notes.append(f"No pictures: {about['images'] or 'the audit was given no images'}.")
        if self.estimate is None:
            notes.append(
                "The number of wrong labels is not estimated: that takes several kinds of evidence and 1,000 samples."
            )
        elif not self.estimate.clear:
            notes.append(
                "Wrong labels are not separated from hard images here. Their number is between those that are and "
                "those that held-out models and training both contradict; the middle is taken. Longer training, more "
                "runs, or an order by a sorting network separate them better."
            )
        return notes

    def to_csv(self, path: str | Path) -> Path:
        """Writes the ranking as CSV, atomically; returns the path."""
        return write_ranking(self.ranking, path)

    def report(self, path: str | Path = "report.html") -> Path:
        """Writes the audit as one self-contained HTML page; returns its path."""
        from mlfix_train.audit.reporting.report import write_report

        images = None if self.pixels is None else self.images
        by_order = self.order is not None
        return write_report(path, self.title, self.about, self.ranking, self.slices, images, self.notes, by_order)

    def draw_panels(
        self, folder: str | Path, n_panels: int = 12, marks: Mapping[str, str] | None = None
    ) -> list[Picture]:
        """Draws panels of the most suspicious samples and slices, and charts, as PNG; none without images.

        Args:
            folder: where the files go; panels of an earlier audit are removed.
            n_panels: number of slices of each kind that get a panel.
            marks: fixes to show, sample id to new label.
        """
        from mlfix_train.audit.reporting.pictures import draw_audit

        if self.pixels is None:
            return []
        places = None if self.order is None else self.order["position"]
        return draw_audit(self.ranking, self.images, Path(folder), self.title, n_panels, marks, places, self.slices)

    def save(
        self, folder: str | Path, n_panels: int | None = None, marks: Mapping[str, str] | None = None
    ) -> list[Picture]:
        """Writes the audit as ``mlfix audit`` does, for ``mlfix review`` and ``mlfix export``; returns the pictures.

        Args:
            folder: gets ranking.csv, slices.csv, unranked.csv and audit.json.
            n_panels: also write report.html and panels of this many slices of each kind; ``None``: neither.
            marks: fixes to show in the panels, sample id to new label.
        """
        started, folder = time.monotonic(), Path(folder).expanduser()
        if n_panels is not None and self.pixels is None:
            for old in (folder / "panels").glob("*.png"):  # of an earlier audit, with images
                old.unlink()
        (folder / "audit.json").unlink(missing_ok=True)  # written last: without it the directory is incomplete
        self.to_csv(folder / "ranking.csv")
        write_slices(self.slices, folder / "slices.csv")
        (folder / "unranked.csv").unlink(missing_ok=True)
        unranked = self.unranked
        if len(unranked):
            with atomic_path(folder / "unranked.csv") as temporary:
                unranked.to_csv(temporary, index=False)
        pictures: list[Picture] = []
        if n_panels is not None:
            pictures = self.draw_panels(folder / "panels", n_panels, marks)
            self.report(folder / "report.html")
        self.seconds["writing"] = round(time.monotonic() - started, 2)
        content = json.dumps({**self.about, "seconds": self.seconds}, indent=1, ensure_ascii=False)
        with atomic_path(folder / "audit.json") as temporary:
            temporary.write_text(content, encoding="utf-8")
        return pictures

    def review(self, out: str | Path = "review", **options: Any) -> Any:
        """Shows the review page in a notebook, where wrong labels are marked.

        Args:
            out: folder of the review; ``fixes.csv`` there is up to date after every mark.
            options: as of :func:`mlfix_train.audit.review.session.open_session`, such as ``reviewer``.

        Returns:
            The widget; ``widget.fixes`` is the path of the fixes file.
        """
        if self.pixels is None or self.samples is None:
            raise DataError(
                f"{self.title} has no images to review", "pass images=, or audit runs whose data still exists"
            )
        from mlfix_train.audit.review.widget import review

        options = {"calibrated": self.estimate is not None, "title": self.title, "order": self.order, **options}
        return review(self.samples, self.pixels, out, ranking=self.ranking, **options)


def _encode_labels(
    labels: Sequence[Any] | np.ndarray, n_classes: int, class_names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """Returns labels as codes, int64 ``(N,)``, and the names of the C classes."""
    values = np.asarray(labels)
    if values.ndim != 1:
        raise DataError(f"labels have the shape {values.shape}", "pass one label per sample: an array (N,)")
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise DataError(
            f"{len(missing):,} labels are missing, the first in row {missing[0]}", "leave these samples out"
        )
    if values.dtype.kind == "f":
        broken = np.flatnonzero(values % 1 != 0)
        if len(broken):
            raise DataError(f"row {broken[0]} has the label {values[broken[0]]}", "labels are class numbers or names")
        values = values.astype(np.int64)
    if values.dtype.kind in "iu":
        names = [str(code) for code in range(n_classes)] if class_names is None else [str(name) for name in class_names]
        unknown = values[(values < 0) | (values >= n_classes)]
        codes = values.astype(np.int64)
    else:
        values = values.astype(str)
        names = sorted(set(values)) if class_names is None else [str(name) for name in class_names]
        codes = pd.Index(names).get_indexer(pd.Index(values))
        unknown = values[codes < 0]
    if len(names) != n_classes or len(set(names)) != n_classes:
        raise DataError(
            f"there are {len(set(names))} class names, but pred_probs has {n_classes} columns",
            "pass class_names= with one name per column",
        )
    if len(unknown):
        raise DataError(
            f"{len(unknown):,} labels match no column of pred_probs, such as {unknown[0]}",
            f"labels must be 0 to {n_classes - 1}, or names from class_names",
        )
    return codes, names


def _read_places(order: str | Path, data: RunData, held: HeldOut) -> pd.DataFrame | None:
    """Reads an order of the samples; ``None`` if these can't be read."""
    ids = held.sample_ids if data.samples is None else data.samples.index
    found = read_order(order, ids, partial=True)
    if data.samples is None:
        log.warning("order=%s is not used: %s", order, data.problem)
        return None
    if len(found) < len(ids):
        log.warning("order=%s lacks %d of %d samples; they come last", order, len(ids) - len(found), len(ids))
    return found


def _neighbour_scores(
    held: HeldOut, data: RunData, order: str | Path | None, source: str, progress: ProgressFactory
) -> tuple[NeighbourScores | None, str]:
    """Returns scores by neighbours, if neighbours can be found, and what they were found by."""
    if source == "auto":
        source = "pixels" if order is None else "order"
    if source == "none" or data.samples is None:
        return None, ""
    if source == "order" and order is not None:
        embeddings, ids, used = neighbour_evidence.read_order_embeddings(order, data.samples)
        return neighbour_evidence.score_by_neighbours(embeddings, ids, data.samples, held), used
    if data.pixels is None:
        return None, ""
    scores = neighbour_evidence.score_by_pixels(data.pixels, data.samples, held, progress("embedding images"))
    return scores, "the pixels"


def _facts(runs: AuditedRuns, data: RunData, order: str | Path | None, neighbours: str) -> dict[str, Any]:
    """Returns the facts about runs and data in ``audit.json``."""
    facts: dict[str, Any] = {
        "runs": len(runs),
        "run_paths": [str(run.path.resolve()) for run in runs.directories],
        "neighbours": neighbours,
        "images": data.problem or None,
        "order": None if order is None else str(Path(order).expanduser().resolve()),
    }
    if runs.states:
        facts |= {"samples": int(runs.states[0]["data"]["samples"]), "data": runs.states[0]["data"]["fingerprint"]}
    return facts
