"""The audit: from predictions to a ranking of suspicious labels, an estimate of how many are wrong, and slices.

    audit = Audit.from_runs("outputs/baseline")
    audit.ranking, audit.estimate
    audit.report("report.html")

Shapes: N samples, C classes, D dimensions.
"""

from __future__ import annotations

import html
import itertools
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from mlfix_train.audit import embedded
from mlfix_train.audit.judgements import match_judgements
from mlfix_train.audit.predictions.arrays import (
    align_rows,
    as_array,
    check_alphabetical,
    encode_labels,
    list_categories,
    list_groups,
    list_ids,
    list_names,
    name_columns,
)
from mlfix_train.audit.predictions.checks import warn_if_few_right
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
from mlfix_train.audit.scores.calibration import calibrate
from mlfix_train.audit.scores.estimates import Estimate, estimate_by_judgements
from mlfix_train.audit.scores.faults import Fault, fault_names, fault_slices, find_faults
from mlfix_train.audit.scores.image_properties import measure_samples
from mlfix_train.audit.scores.label_scores import check_probabilities
from mlfix_train.audit.scores.ranking import Ranking, rank, write_ranking
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.scores.slices import Slice, SliceSpec, rank_slices, select_slices, update_slices, write_slices
from mlfix_train.audit.similarity.neighbours import check_embeddings
from mlfix_train.audit.similarity.order_files import (
    find_embeddings,
    read_order,
    samples_fingerprint,
    write_embeddings,
    write_order,
)
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.pixels.sizes import stored_size
from mlfix_train.data.pixels.spec import PixelsConfig, PixelSpec
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.samples import COLUMNS as SAMPLE_COLUMNS
from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError, check_choice
from mlfix_train.models.embedding.base import Embedder

if TYPE_CHECKING:
    from mlfix_train.audit.reporting.pictures import Picture

log = logging.getLogger(__name__)

Images = PixelStore | np.ndarray
EMBEDDINGS = ("auto", "pretrained", "order", "pixels", "none")
"""What images can be embedded by."""
DEFAULT_SIZE = 64
"""Side of the images, px, if neither the configuration nor a network sets it."""
SMALLEST_PROBABILITY = 1e-38
"""Probabilities are raised to this before their logarithm is taken."""


class Audit:
    """An audit of given labels. Make one by :meth:`from_runs` or :meth:`from_predictions`.

    Args:
        evidence: what the labels are judged by.
        samples: sample table, which may hold more samples than were held out.
        pixels: images, rows as in ``samples``: a pixel store, or uint8 ``(N, H, W, 3)``.
        order: visual order of the samples, as read by :func:`mlfix_train.audit.similarity.order_files.read_order`.
        embedding: embedded images of the samples, for the review page: similar ones, and the map.
        slices: the user's slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
        title: in headlines.
        about: further facts for ``audit.json``.

    Attributes:
        ranking: see :mod:`mlfix_train.audit.scores.ranking`, most suspicious first.
        estimate: how many labels are wrong and how far to review; ``None`` with one kind of evidence or few samples.
        slices: pairs of labels, labels, the user's slices and near-duplicates, most suspicious first; then the faults.
        faults: other faults than wrong labels, see :mod:`mlfix_train.audit.scores.faults`; the column ``fault`` of
            the ranking names those of each sample.
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
        embedding: embedded.EmbeddedSamples | None = None,
        slices: Mapping[str, SliceSpec] | None = None,
        title: str = "audit",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        started = time.monotonic()
        self.evidence, self.samples, self.pixels, self.order = evidence, samples, pixels, order
        self.embedding = embedding
        self.title, self._about = title, dict(about or {})
        result: Ranking = rank(evidence)
        self.ranking, self.kinds, self.confident_issues = result.table, result.kinds, result.confident_issues
        self.estimate: Estimate | None = result.estimate
        duplicates = None if order is None else order["duplicate_group"]
        self.faults: list[Fault] = find_faults(self.ranking, evidence, samples, duplicates)
        self.ranking["fault"] = fault_names(self.faults, len(self.ranking))
        self.slices: list[Slice] = self._rank_slices(slices or {}) + fault_slices(self.faults, self.ranking)
        self.seconds: dict[str, float] = {"ranking": round(time.monotonic() - started, 2)}

    @classmethod
    def from_predictions(
        cls,
        labels: Sequence[Any] | np.ndarray | pd.Series,
        pred_probs: np.ndarray | pd.DataFrame | None = None,
        embeddings: np.ndarray | pd.DataFrame | None = None,
        groups: Sequence[Any] | np.ndarray | pd.Series | None = None,
        images: Images | Sequence[str | Path] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        *,
        sample_ids: Sequence[Any] | pd.Index | np.ndarray | None = None,
        slices: Mapping[str, SliceSpec] | None = None,
        title: str = "audit",
        progress: ProgressFactory = no_progress,
    ) -> Audit:
        """Audits labels by the out-of-sample probabilities of any model, by embeddings of the images, or by both.

        Args:
            labels: ``(N,)``, given labels: names, or numbers of the columns of ``pred_probs``, from 0 (names if the
                classes are numbers themselves, such as 30, 50 and 70).
            pred_probs: float ``(N, C)``, probabilities by models that did not train on the sample; the columns of a
                DataFrame name the classes. Without them, a linear layer on the embeddings is fitted out of fold.
            embeddings: float ``(N, D)``, features of any network; also for evidence by nearest neighbours.
            groups: ``(N,)``, photo, track or patient of each sample, ``None`` where there is none; samples of one group
                are not independent.
            images: uint8 ``(N, H, W, 3)``, a pixel store, or N image files (decoded to 64 px into ``.pixels``).
            class_names: names of the C columns, or a mapping of names to numbers; by default those of the DataFrame or
                the categories of ``labels``, else the sorted label names, or the column numbers.
            sample_ids: N unique names; by default the image files, the index of the pandas objects if it is text, or
                row numbers. Pandas objects whose index has the same names in another order are put in one order.
            slices: your own slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
            title: in headlines.
            progress: maps the description of a step to a callback that is called with (done, total).

        Raises:
            DataError: Arrays of different lengths, unknown labels, or rows that are not probability distributions.
        """
        if pred_probs is None and embeddings is None:
            raise DataError("there are neither pred_probs nor embeddings", "pass one of them, or use Audit.from_folder")
        given_names = None if class_names is None else list_names("class_names", class_names)
        rows, index = align_rows(labels=labels, pred_probs=pred_probs, embeddings=embeddings, groups=groups)
        pred_probs, given_names = name_columns(rows["pred_probs"], given_names)
        labels, groups, n_classes = rows["labels"], rows["groups"], None
        if embeddings is not None:
            embeddings = as_array(rows["embeddings"], "embeddings")
        if pred_probs is not None:
            pred_probs = check_probabilities(as_array(pred_probs, "pred_probs"), "pred_probs")
            n_classes = pred_probs.shape[1]
            given_names = given_names or list_categories(labels, n_classes)
        n = len(labels) if pred_probs is None else len(pred_probs)
        sizes = {"labels": labels, "embeddings": embeddings, "groups": groups, "images": images}
        for name, values in {**sizes, "sample_ids": sample_ids}.items():
            if values is not None and len(values) != n:
                raise DataError(f"{name} has {len(values):,} rows, not {n:,}", "pass one row per sample")
        codes, names = encode_labels(labels, n_classes, given_names)
        paths = [str(path) for path in images] if images is not None and not hasattr(images, "shape") else None
        found_ids = list_ids("sample_ids", sample_ids if sample_ids is not None or paths else index)
        ids = found_ids.tolist() if found_ids is not None else paths or [str(row) for row in range(n)]
        given = [names[code] for code in codes]
        own_groups = None if groups is None else list_groups(groups, ids)
        samples = make_table(ids, paths or ids, given, own_groups, source="the samples")
        found = None if embeddings is None else embedded.given_embeddings(samples, check_embeddings(embeddings))
        logits = None
        if pred_probs is None:
            assert found is not None
            logits = embedded.probe_logits(found, samples, names, progress("fitting a linear layer"))[1]
            held = merge_runs([predictions_table(ids, codes, logits, names)], names)
            evidence = Evidence(held, probabilities=softmax(logits[:, np.argsort(names)]), predictor="probe")
        else:
            logits = np.log(np.maximum(np.asarray(pred_probs, np.float64), SMALLEST_PROBABILITY))
            predicted = logits.argmax(1)
            if given_names is None and names != [str(place) for place in range(len(names))]:
                check_alphabetical(codes, predicted, names)
            warn_if_few_right(pd.Series(given), pd.Series([names[code] for code in predicted]), "pred_probs")
            held = merge_runs([predictions_table(ids, codes, logits, names)], names)
            evidence = Evidence(held, probabilities=pred_probs[:, np.argsort(names)], predictor="pred_probs")
        evidence = embedded.with_images(evidence, samples, found, progress, trained_here=pred_probs is None)
        pixels: Any = images if paths is None else open_store(samples, PixelSpec(64), PixelsConfig.cache)
        evidence = replace(evidence, image_properties=_measure_images(pixels, samples, held, progress))
        about = {"neighbours": "" if embeddings is None else "the embeddings"}
        options: dict[str, Any] = {"embedding": found, "slices": slices, "title": title, "about": about}
        return cls(evidence, samples=samples, pixels=pixels, **options)

    @classmethod
    def from_samples(
        cls,
        samples: pd.DataFrame,
        *,
        pixels: PixelsConfig | None = None,
        embedder: Embedder | None = None,
        by_pixels: bool = False,
        folder: str | Path | None = None,
        bfloat16: bool = False,
        slices: Mapping[str, SliceSpec] | None = None,
        title: str = "audit",
        about: Mapping[str, Any] | None = None,
        progress: ProgressFactory = no_progress,
    ) -> Audit:
        """Audits labels without any training: by a linear layer on features of the images, fitted out of fold.

        Args:
            samples: sample table, see :func:`mlfix_train.data.samples.make_table` and the readers.
            pixels: how the images are decoded; by default at the size that the embedder takes, or as large as they are.
            embedder: what embeds the images; by default a pretrained network if one is at hand (see
                :func:`mlfix_train.models.embedding.pretrained.load_pretrained`), else their pixels.
            by_pixels: compare images by their pixels though a pretrained network is at hand.
            folder: where the features are kept for the next time, and an interrupted audit goes on.
            bfloat16: compute features in bfloat16, which is faster where the processor has units for it.
            slices: your own slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
            title: in headlines.
            about: further facts for ``audit.json``.
            progress: maps the description of a step to a callback that is called with (done, total).

        Raises:
            DataError: Fewer than two labels, no image that can be read, or images that are all alike.
        """
        times = {"start": time.monotonic()}
        if embedder is None and not by_pixels and embedded.has_pretrained():
            embedder = embedded.load_default_embedder()
        if samples["label"].dropna().nunique() < 2:
            raise DataError("the samples have fewer than two labels", "name the class folders or a column of labels")
        if samples["group"].nunique() < 2:  # before the images are embedded, which takes long
            problem = f"all samples are of one group ({samples['group'].iloc[0]}), so none can be held out"
            raise DataError(problem, "make groups that part the samples, such as one for each photo; or leave them out")
        pixels = pixels or PixelsConfig(size=None)
        size = DEFAULT_SIZE if embedder is None else stored_size(samples, embedder.image_size or DEFAULT_SIZE)
        cache = Path(pixels.cache).expanduser()
        step = progress("decoding images")
        store = open_store(samples, pixels.spec(size), cache, max_unreadable=pixels.max_unreadable, progress=step)
        times["data"] = time.monotonic()
        if by_pixels:
            found = embedded.embed_pixels(samples, store, progress("embedding images"))
        else:
            found = embedded.embed_images(samples, store, embedder, folder, bfloat16, progress)
        times["embedding"] = time.monotonic()
        names = sorted({str(label) for label in samples["label"].dropna()})
        rows, logits = embedded.probe_logits(found, samples, names, progress("fitting a linear layer"))
        table = samples.iloc[rows]
        codes = embedded.label_codes(table, names)
        held = merge_runs([predictions_table(table.index.to_numpy(), codes, logits, names)], names)
        times["linear layer"] = time.monotonic()
        evidence = Evidence(held, probabilities=softmax(logits), predictor="probe")
        evidence = embedded.with_images(evidence, samples, found, progress)
        evidence = replace(evidence, image_properties=_measure_images(store, samples, held, progress))
        order, _ = embedded.order_samples(found, samples, store, embedder, progress("ordering labels"))
        times["order"] = time.monotonic()
        facts = {"runs": 0, "neighbours": found.used} | dict(about or {})
        options: dict[str, Any] = {"embedding": found, "slices": slices, "title": title, "about": facts}
        audit = cls(evidence, samples=samples, pixels=store, order=order, **options)
        times["ranking"] = time.monotonic()
        laps = itertools.pairwise(times.items())
        audit.seconds = {step: round(end - start, 2) for (_, start), (step, end) in laps}
        return audit

    @classmethod
    def from_folder(cls, root: str | Path, group: str | None = None, **options: Any) -> Audit:
        """Audits a folder that holds a folder of images for each label, without any training.

        Args:
            root: the folder.
            group: regular expression on the file whose first group is its photo or track; samples of one group are
                held out together.
            options: as of :meth:`from_samples`.
        """
        return cls.from_samples(read_folder(root, group), **{"title": Path(root).name, **options})

    @classmethod
    def from_runs(
        cls,
        runs: str | Path | Sequence[str | Path] | AuditedRuns,
        *,
        labels: str | Path | None = None,
        samples: pd.DataFrame | None = None,
        pixels: PixelsConfig | None = None,
        order: str | Path | None = None,
        by: str = "auto",
        embedder: Embedder | None = None,
        folder: str | Path | None = None,
        bfloat16: bool = False,
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
            by: what images are compared by: ``pretrained`` (a pretrained network, whose features also get a linear
                layer), ``order`` (the embeddings of the order), ``pixels``, ``none``, or ``auto`` (the first of these
                that is at hand).
            embedder: your own embedder, used as a pretrained one is.
            folder: where its features are kept for the next time.
            bfloat16: compute features in bfloat16, which is faster where the processor has units for it.
            slices: your own slices, see :func:`mlfix_train.audit.scores.slices.select_slices`.
            title: in headlines; by default the name of the runs.
            about: further facts for ``audit.json``.
            progress: maps the description of a step to a callback that is called with (done, total).

        Raises:
            MlfixError: No finished runs, runs with different data or labels, or files that can't be used.
        """
        check_choice("by", by, EMBEDDINGS)
        if by == "order" and order is None:
            raise ConfigError("by=order needs order", "set order=<output folder of mlfix sort>")
        times = {"start": time.monotonic()}
        found = runs if isinstance(runs, AuditedRuns) else load_runs(runs, labels, progress)
        if samples is not None and found.files:
            match_ids(found.files.values(), samples)
        held = found.held_out(progress)
        times["predictions"] = time.monotonic()
        data = open_run_data(found, held, progress, samples, pixels)
        times["data"] = time.monotonic()
        places = None if order is None else _read_places(order, data, held)
        images = None
        if data.samples is not None:
            images = embedded.embed_run_images(by, data, order, embedder, folder, bfloat16, progress)
        times["neighbours"] = time.monotonic()
        evidence = Evidence(
            held,
            aum=mean_aum(found, held),
            probabilities=mean_probabilities(found, held, progress),
            image_properties=_measure_images(data.pixels, data.samples, held, progress),
        )
        if data.samples is not None:
            evidence = embedded.with_images(evidence, data.samples, images, progress, trained_here=not found.files)
        kept = embedded.run_probe_logits(found, held, evidence.groups, progress)
        evidence = replace(evidence, run_probe_logits=kept)
        used = "" if images is None else images.used
        options: dict[str, Any] = {"samples": data.samples, "pixels": data.pixels, "order": places, "slices": slices}
        options["embedding"] = images
        audit = cls(
            evidence, **options, title=title or found.title, about=_facts(found, data, order, used) | dict(about or {})
        )
        times["ranking"] = time.monotonic()
        laps = itertools.pairwise(times.items())
        audit.seconds = {step: round(end - start, 2) for (_, start), (step, end) in laps}
        return audit

    def __repr__(self) -> str:
        labels = len([name for name in self.evidence.held_out.class_names if name])
        n_wrong = "" if self.estimate is None else f", about {self.estimate.wrong:,.0f} wrong"
        return f"<Audit {self.title!r}: {len(self.ranking):,} samples, {labels:,} labels{n_wrong}>"

    def _repr_html_(self) -> str:
        columns = ["rank", "sample_id", "given_label", "suggested_label", "suspicion"]
        return f"<p>{html.escape(repr(self))}</p>{self.ranking[columns].head(10).to_html(index=False)}"

    def _rank_slices(self, specs: Mapping[str, SliceSpec]) -> list[Slice]:
        metadata = None
        if self.samples is not None:
            metadata = self.samples.drop(columns=[name for name in SAMPLE_COLUMNS if name != "split"])
        given = self.ranking["given_label"].to_numpy(dtype=object)
        masks = select_slices(specs, given, pd.Index(self.ranking["sample_id"]), metadata)
        named = {name: mask for name, mask in masks.items() if name != "all" and not name.startswith("not ")}
        duplicates = None if self.order is None or self.samples is None else self.order["duplicate_group"]
        return rank_slices(self.ranking, named, duplicates)

    def calibrate(
        self,
        judged: Mapping[str, Any] | pd.Series | pd.DataFrame | str | Path,
        looked_at: Collection[str] | None = None,
    ) -> Estimate:
        """Learns from judged labels how likely each label is wrong, and how many are.

        The ``suspicion``, ``label_score`` and ``is_label_issue`` of the ranking, the slices and ``estimate`` follow;
        the order of the ranking stays. A hundred labels tell a lot if they are drawn over the whole ranking:

            rows = draw_to_judge(-audit.ranking["rank"], 100)
            audit.ranking["sample_id"].iloc[rows]  # look at these

        What is assumed is said in :mod:`mlfix_train.audit.scores.calibration`.

        Args:
            judged: sample id to whether the label is wrong (a mapping or Series); or fixes (a DataFrame or a file),
                with the ids that were ``looked_at``; or the folder of a review.
            looked_at: ids of all samples that were looked at, fixed or not; those without a fix have the right label.

        Returns:
            How many labels are wrong, which is also the new ``estimate``.

        Raises:
            DataError: Nothing was judged, or samples that are not in the ranking.
            FixesError: The fixes can't be read.
        """
        table, held = self.ranking, self.evidence.held_out
        found = match_judgements(table, judged, looked_at)
        rows = held.sample_ids.get_indexer(pd.Index(table["sample_id"]))
        labels, groups = held.labels[rows].astype(np.int64), self.evidence.groups
        result = calibrate(
            -np.arange(len(table)),
            found.rows,
            found.wrong,
            labels,
            len(held.class_names),
            None if groups is None else groups[rows],
            found=found.found,
            kept=found.kept,
        )
        self.ranking = table.assign(
            suspicion=result.probability,
            label_score=1 - result.probability,
            is_label_issue=(result.probability >= 0.5) & (table["suggested_label"] != table["given_label"]),
        )
        self.slices = update_slices(self.slices, result.probability)
        self.estimate = estimate_by_judgements(result, labels, held.class_names)
        return self.estimate

    @cached_property
    def unranked(self) -> pd.DataFrame:
        """Samples that no run held out: columns ``sample_id``, ``given_label`` and ``reason``."""
        if self.samples is None:
            return pd.DataFrame(columns=["sample_id", "given_label", "reason"])
        ids = self.samples.index.difference(self.evidence.held_out.sample_ids, sort=False)
        unreadable = getattr(self.pixels, "unreadable", {})
        has_label = self.samples["label"].notna().loc[ids]
        reasons = [
            "it has no label"
            if not has_label[name]
            else "the image can't be read"
            if name in unreadable
            else "no run held it out"
            for name in ids
        ]
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

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Adds to the content of ``audit.json``."""
        self._about |= facts

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
            "labels": len([name for name in held.class_names if name]),  # "": unknown predictions
            "evidence": self.kinds,
            "held_out_error": None
            if np.isnan(held.disagreement).any()
            else round(100 * float(held.disagreement.mean()), 3),
            "predicted_differently": int(held.is_contradicted.sum()),
            "issues": int(self.ranking["is_label_issue"].sum()),
            "confident_learning": self.confident_issues,
            "single_group_labels": self.single_group_labels,
            "faults": [fault.to_dict() for fault in self.faults],
            "label_names": [name for name in held.class_names if name],
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
                f"{about['unranked']:,} of {about['samples']:,} samples are not ranked (no run held them out, or they "
                "have no label or no image); unranked.csv lists them."
            )
        single = about["single_group_labels"]
        if single:
            names = ", ".join(single[:20]) + (" …" if len(single) > 20 else "")
            notes.append(
                "Labels with a single sample or group, which no model could learn before predicting it: "
                f"{names}. Their suspicion means little."
            )
        unknown = int(self.evidence.held_out.is_unknown.sum())
        if unknown:
            notes.append(
                f"The predicted label of {unknown:,} samples is unknown: only the probability of the given label is "
                "recorded, and it is below a half."
            )
        if self.pixels is None:
            notes.append(f"No pictures: {about['images'] or 'the audit was given no images'}.")
        return notes

    def to_csv(self, path: str | Path) -> Path:
        """Writes the ranking as CSV, atomically; returns the path."""
        return write_ranking(self.ranking, path)

    def report(self, path: str | Path = "report.html") -> Path:
        """Writes the audit as one self-contained HTML page (``report.html`` in ``path`` if that is a folder).

        Returns:
            The path of the page.
        """
        path = Path(path).expanduser()
        path = path / "report.html" if path.is_dir() else path
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
        if self.order is not None and self._about.get("order") is None:  # made by the audit itself
            found = {"used": self._about.get("neighbours", ""), "samples": samples_fingerprint(self.order.index)}
            write_order(self.order.reset_index(drop=True), folder / "order.parquet", found)
            self._about["order"] = str(folder.resolve())
        has_own_space = self._about.get("order") in (None, str(folder.resolve()))  # else that of mlfix sort
        if has_own_space and self.embedding is not None:
            self._write_embeddings(folder)
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

    def _write_embeddings(self, folder: Path) -> None:
        if self.embedding is not None and self.samples is not None:
            ids = self.samples.index[self.embedding.rows]
            write_embeddings(self.embedding.found.embeddings, folder / "embeddings.npy", ids, self.embedding.used)

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
        if self.embedding is not None:
            self._write_embeddings(Path(out).expanduser())
        folders = [None if self.embedding is None else out, self._about.get("order")]
        options.setdefault("find_embeddings", lambda: find_embeddings(folders))
        return review(self.samples, self.pixels, out, ranking=self.ranking, **options)


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


def _measure_images(
    pixels: Images | None, samples: pd.DataFrame | None, held: HeldOut, progress: ProgressFactory = no_progress
) -> pd.DataFrame | None:
    """Returns properties of the held-out images, rows as in ``held``; ``None`` without images."""
    if pixels is None or samples is None:
        return None
    return measure_samples(pixels, samples, progress("measuring images")).loc[held.sample_ids]


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
