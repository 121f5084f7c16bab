"""What the judgements of a review say about all labels: see :mod:`mlfix_train.audit.scores.calibration`.

Shapes: N samples, R of them ranked by an audit, C labels.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from mlfix_train.audit.judgements import counts_as_judged
from mlfix_train.audit.review.marks import INVALID_CODE, KEEP_CODE, UNSURE_CODE, MarkStore
from mlfix_train.audit.review.progress import SeenLog, draw_random, reviewed_mask
from mlfix_train.audit.review.samples import Samples
from mlfix_train.audit.scores.calibration import calibrate, draw_to_judge
from mlfix_train.audit.scores.estimates import Estimate, estimate_by_judgements

MIN_JUDGED = 10
"""Fewer judged labels are not worth a number."""
MAX_SPREAD = 2.0
"""Without the sample to judge, a count is told once the upper end of its interval is at most this many times the lower
one: those who review choose what they look at, and the top of some groups says little about the rest."""
MAX_AGE = 5.0
"""Seconds for which a calibration is kept while samples are only scrolled past."""
MANY = 100_000
"""More samples are calibrated in a thread, while requests are answered by the calibration before."""


@dataclass(frozen=True, eq=False)
class CalibratedReview:
    """What judgements say.

    Attributes:
        estimate: how many labels are wrong.
        probability: float64 ``(N,)``, that each label is wrong by its rank; NaN outside the audit.
        judged: bool ``(N,)``, labels that were judged.
    """

    estimate: Estimate
    probability: np.ndarray
    judged: np.ndarray


class Calibrator:
    """Calibrates the ranking of a review by its judgements, again whenever these have changed."""

    def __init__(self, samples: Samples, store: MarkStore, seen_log: SeenLog) -> None:
        self.samples, self.store, self.seen_log = samples, store, seen_log
        ranked = np.flatnonzero(samples.rank >= 0)
        self.ranked = ranked[np.argsort(samples.rank[ranked], kind="stable")]  # rows, most suspicious first
        self.evidence = -np.arange(len(self.ranked), dtype=np.float64)
        groups = samples.groups[self.ranked]
        self._groups = groups if len(groups) and len(np.unique(groups)) < len(groups) else None
        self._lock = threading.Lock()
        self._decided: tuple[bytes, ...] = ()
        self._judged, self._time = b"", 0.0
        self._found: CalibratedReview | None = None
        self._thread: threading.Thread | None = None
        self.is_behind = False  # whether there are judgements that the calibration returned last does not know

    def draw(self, count: int) -> list[int]:
        """Draws further rows to judge: stratified by rank; at random where there is no ranking."""
        drawn = np.asarray(self.store.drawn, np.int64)
        if not len(self.ranked):
            return draw_random(len(self.samples), drawn.tolist(), count)
        ranks = self.samples.rank[drawn]
        rows: list[int] = self.ranked[draw_to_judge(self.evidence, count, judged=ranks[ranks >= 0])].tolist()
        return rows

    def judged(self) -> np.ndarray:
        """Returns which samples were judged, bool ``(N,)``: in the sample to judge, or in an ordinary review.

        Answers "unsure" judge nothing.
        """
        store, seen = self.store, self.seen_log
        judged = seen.seen_in_random | store.random_reviewed
        reviewed = reviewed_mask(store, seen.seen)
        by_group = store.group_reviewed & ~store.random_reviewed
        if counts_as_judged(int(store.is_wrong.sum()), int(reviewed.sum()), bool(by_group.any())):
            judged = judged | seen.seen
        return np.asarray((judged | store.group_reviewed) & (store.marks != UNSURE_CODE))

    @property
    def latest(self) -> CalibratedReview | None:
        """What the judgements said when :meth:`calibrated` was called last."""
        return self._found

    def calibrated(self) -> CalibratedReview | None:
        """Returns what the judgements say; ``None`` without an audit, or with fewer than :data:`MIN_JUDGED`.

        After a mark it is always up to date; samples that were only scrolled past count at most :data:`MAX_AGE` later.
        With more than :data:`MANY` samples it may be what they said some seconds ago (:attr:`is_behind`).
        """
        if not len(self.ranked):
            return None
        with self.store.lock:
            judged, marks = self.judged(), self.store.marks.copy()
            decided = marks.tobytes(), self.store.group_reviewed.tobytes(), self.seen_log.seen_in_random.tobytes()
        self.is_behind = (decided, judged.tobytes()) != (self._decided, self._judged) and len(self.ranked) > MANY
        if not self.is_behind:
            return self._update(judged, marks, decided)
        if (self._thread is None or not self._thread.is_alive()) and time.monotonic() - self._time >= MAX_AGE:
            arguments = (judged, marks, decided)
            self._thread = threading.Thread(target=self._update, args=arguments, daemon=True, name="calibration")
            self._thread.start()
        return self._found

    def _update(
        self, judged: np.ndarray, marks: np.ndarray, decided: tuple[bytes, bytes, bytes]
    ) -> CalibratedReview | None:
        with self._lock:
            is_recent = decided == self._decided and time.monotonic() - self._time < MAX_AGE
            if not is_recent and (decided, judged.tobytes()) != (self._decided, self._judged):
                self._found = self._calibrate(judged, marks)
                self._decided, self._judged, self._time = decided, judged.tobytes(), time.monotonic()
            return self._found

    def _calibrate(self, judged: np.ndarray, marks: np.ndarray) -> CalibratedReview | None:
        rows, samples, wrong = self.ranked, self.samples, (marks >= 0) | (marks == INVALID_CODE)
        looked_at = np.flatnonzero(judged[rows])
        if len(looked_at) < MIN_JUDGED:
            return None
        found, kept = (np.flatnonzero(mask[rows] & ~judged[rows]) for mask in (wrong, marks == KEEP_CODE))
        labels, n_classes = samples.given[rows].astype(np.int64), len(samples.labels)
        looked_wrong = wrong[rows][looked_at]
        result = calibrate(
            self.evidence, looked_at, looked_wrong, labels, n_classes, self._groups, found=found, kept=kept
        )
        estimate = estimate_by_judgements(result, labels, samples.labels)
        sampled = (self.seen_log.seen_in_random | self.store.random_reviewed)[rows][looked_at].sum()
        if sampled < MIN_JUDGED and estimate.interval[1] > MAX_SPREAD * estimate.interval[0]:
            return None
        probability = np.full(len(samples), np.nan)
        probability[rows] = result.probability
        return CalibratedReview(estimate, probability, judged)
