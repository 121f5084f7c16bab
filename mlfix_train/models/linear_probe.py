"""A linear layer on fixed features, fitted out of fold: held-out predictions for every sample without any training.

Multinomial logistic regression with an L2 penalty. All folds are fitted at once, as one product of the features with
the weights of all folds; L-BFGS works in coordinates in which the features are nearly uncorrelated, where it takes some
tens of steps instead of hundreds. The strength of the penalty is the one under which the *given* labels of the folds
left out are likeliest.

Shapes: N samples, D features, C classes, F folds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mlfix_train.errors import DataError

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Strengths of the penalty that are tried, from the strongest, for features whose mean squared length is 1."""
HALF_STEP = 10**0.5
"""The best of these is compared with this many times and this part of it."""
MAX_STEPS = 30
SEARCH_SAMPLES = 20_000
"""The strength is chosen on a sample of this size."""
MAX_WORK = 2e11
"""Multiplications of one step above which the features are projected to their principal components first."""
MIN_WIDTH, MAX_WIDTH = 256, 512
"""Principal components that are kept, at least and at most."""
BLOCK = 8192


@dataclass(frozen=True)
class OutOfFold:
    """Predictions by layers that did not see the sample.

    Attributes:
        logits: float32 ``(N, C)``.
        strength: strength of the penalty.
        loss: mean cross-entropy of the given labels, nats.
    """

    logits: np.ndarray
    strength: float
    loss: float


class OutOfFoldProbe:
    """Fits one linear layer a fold, each on the samples of the other folds.

    Args:
        features: float ``(N, D)``.
        labels: int64 ``(N,)``, 0 to C - 1.
        n_classes: C.
        folds: int64 ``(N,)``, fold of each sample; samples of one group are in one fold.
        device: where it computes.

    Raises:
        DataError: A feature is NaN or infinite, or there is one fold only.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, n_classes: int, folds: np.ndarray, device: str = "cpu"
    ) -> None:
        self.n_classes, self.folds, self.n_folds = n_classes, folds, int(folds.max(initial=-1)) + 1
        if len(np.unique(folds)) < 2:
            raise DataError(f"{len(labels):,} samples in one fold can't be held out", "use two or more groups")
        self.labels = torch.as_tensor(labels, device=device)
        self._fold = torch.as_tensor(folds, device=device)
        x = torch.tensor(np.asarray(features, np.float32), device=device)
        bad = ~torch.isfinite(x).all(1)
        if bad.any():
            problem = (
                f"the features of {int(bad.sum()):,} samples are NaN or infinite, first in row {int(bad.nonzero()[0])}"
            )
            raise DataError(problem, "embed these images again, or leave them out")
        x -= x.mean(0)
        covariance = x.T @ x / len(x)
        variances, axes = torch.linalg.eigh(covariance.double())
        variances, axes = variances.flip(0).clamp_min(0), axes.flip(1)
        work = 4.0 * len(x) * n_classes * self.n_folds
        self.width = int(min(*x.shape, MAX_WIDTH, max(MIN_WIDTH, MAX_WORK / work)))
        total = float(variances.sum())
        if total <= 0:
            raise DataError("all images have the same features", "check that they differ, or use another embedder")
        self._x = x @ (axes[:, : self.width].float() / total**0.5)  # mean squared length 1 before truncation
        self._variances = (variances[: self.width] / total).float()

    def fit(
        self,
        keep: np.ndarray | None = None,
        strength: float | None = None,
        seed: int = 0,
    ) -> OutOfFold:
        """Fits all folds.

        Args:
            keep: bool ``(N,)``, samples to learn from; all by default. The others are predicted all the same.
            strength: of the penalty; by default the one with the lowest loss on held-out samples.
            seed: of the sample on which the strength is chosen.
        """
        learned = np.ones(len(self.folds), bool) if keep is None else keep
        if strength is None:
            strength = self._choose_strength(learned, seed)
        weights, _ = self._optimize(np.arange(len(self.folds)), learned, strength, None)
        logits = self._held_out_logits(np.arange(len(self.folds)), weights)
        loss = float(torch.nn.functional.cross_entropy(logits, self.labels))
        return OutOfFold(logits.cpu().numpy(), strength, loss)

    def _choose_strength(self, learned: np.ndarray, seed: int) -> float:
        rows = np.arange(len(self.folds))
        if len(rows) > SEARCH_SAMPLES:
            rows = np.sort(np.random.default_rng(seed).choice(rows, SEARCH_SAMPLES, replace=False))
        judged = torch.as_tensor(np.flatnonzero(learned[rows]), device=self._x.device)

        def held_out_loss(strength: float, start: Tensor | None) -> tuple[float, Tensor]:
            weights, _ = self._optimize(rows, learned, strength, start)
            logits = self._held_out_logits(rows, weights)[judged]
            return float(torch.nn.functional.cross_entropy(logits, self.labels[rows][judged])), weights

        best, lowest, weights = STRENGTHS[0], np.inf, None
        for strength in STRENGTHS:
            loss, found = held_out_loss(strength, weights)
            if loss > lowest:
                break
            best, lowest, weights = strength, loss, found
        for strength in (best * HALF_STEP, best / HALF_STEP):
            loss, _ = held_out_loss(strength, weights)
            if loss < lowest:
                return strength
        return best

    def _optimize(
        self, rows: np.ndarray, learned: np.ndarray, strength: float, start: Tensor | None
    ) -> tuple[Tensor, float]:
        """Minimizes the loss of all folds; returns weights ``(D + 1, F * C)`` and the loss."""
        device = self._x.device
        # A bound of the Hessian of the loss is half the covariance (Boehning 1992); scaled by its root, all directions
        # are about equally curved.
        scale = torch.cat([1 / (self._variances / 4 + strength).sqrt(), torch.ones(1, device=device)])[:, None]
        penalty = strength * scale.square()
        penalty[-1] = 0
        shape = (self.width + 1, self.n_folds * self.n_classes)
        inner = torch.zeros(shape, device=device) if start is None else start / scale
        inner.requires_grad_(True)
        index = torch.as_tensor(rows, device=device)
        uses = torch.as_tensor(learned[rows], device=device)[:, None] & (
            self._fold[index][:, None] != torch.arange(self.n_folds, device=device)
        )
        share = uses / uses.sum(0).clamp_min(1)  # (N, F), mean over the samples of a fold's training side
        optimizer = torch.optim.LBFGS(
            [inner], max_iter=MAX_STEPS, history_size=10, tolerance_grad=1e-6, tolerance_change=1e-8,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> Tensor:
            weights = (inner * scale).detach()
            gradient, loss = torch.zeros_like(weights), torch.zeros((), device=device)
            for begin in range(0, len(index), BLOCK):
                part = index[begin : begin + BLOCK]
                x, share_of = self._x[part], share[begin : begin + BLOCK]
                logits = (x @ weights[:-1] + weights[-1]).view(len(part), self.n_folds, self.n_classes)
                log_p = logits.log_softmax(2)
                labels = self.labels[part]
                loss -= (log_p.gather(2, labels[:, None, None].expand(-1, self.n_folds, 1))[:, :, 0] * share_of).sum()
                difference = (log_p.exp() - one_hot(labels, self.n_classes)[:, None]) * share_of[:, :, None]
                flat = difference.view(len(part), -1)
                gradient[:-1] += x.T @ flat
                gradient[-1] += flat.sum(0)
            inner.grad = gradient * scale + penalty * inner.detach()
            return loss + (penalty * inner.detach().square()).sum() / 2

        loss = float(optimizer.step(closure))  # type: ignore[no-untyped-call]
        return (inner * scale).detach(), loss

    def _held_out_logits(self, rows: np.ndarray, weights: Tensor) -> Tensor:
        """Returns the logits of rows by the layer of their own fold, ``(n, C)``."""
        index = torch.as_tensor(rows, device=self._x.device)
        logits = torch.empty((len(rows), self.n_classes), device=self._x.device)
        by_fold = weights.view(-1, self.n_folds, self.n_classes)
        for fold in range(self.n_folds):
            own = (self._fold[index] == fold).nonzero()[:, 0]
            logits[own] = self._x[index[own]] @ by_fold[:-1, fold] + by_fold[-1, fold]
        return logits
