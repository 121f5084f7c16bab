"""Logits, labels and sample positions out of the steps and batches of any LightningModule.

Shapes: B samples of a batch, C classes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from mlfix_train.audit.predictions.table import SMALLEST_PROBABILITY
from mlfix_train.errors import DataError, format_list

Outputs = str | Callable[[Any, Any, L.LightningModule], Any]
"""Where logits come from: a key of what the step returns, ``"forward"``, or ``f(step_outputs, batch, module)``, which
returns logits ``(B, C)`` or a dict with ``logits`` and, optionally, ``label`` and ``index``."""
FORWARD = "forward"
SIGMOID_SPAN = 0.95
"""Range of few sigmoid outputs from which on they are not taken for logits."""
MIN_CLASSES = 10
"""So many logits of an untrained network are all above 0 once in 1,000 times."""
LABEL_KEYS = ("label", "labels", "target", "targets", "y")
REMEDIES = {
    "outputs": "return {'logits': logits} from the step, or pass AuditCallback(outputs=...): a key of what the step "
    "returns, 'forward' (what module(x) returned in the step), or a function of (step outputs, batch, module)",
    "class_names": "pass class_names= in the order of the logits, one per column",
}
"""What to do where ``outputs`` or ``class_names`` do not fit."""


class OutputReader:
    """Reads logits, labels and positions of a batch.

    Args:
        outputs: where the logits come from; ``None``: the step returns them, alone or as ``logits`` in a dict.
        class_names: names of the C classes, if known.
        remedies: as in :data:`REMEDIES`, for a user who sets these elsewhere.
    """

    def __init__(
        self,
        outputs: Outputs | None = None,
        class_names: list[str] | None = None,
        remedies: Mapping[str, str] = REMEDIES,
    ) -> None:
        self.outputs, self.class_names, self.remedies = outputs, class_names, remedies
        self._gives_probabilities: dict[str, bool] = {}  # by step: some give logits in training alone
        self._forwarded: list[Any] = []
        self._hook: Any = None

    def attach(self, module: L.LightningModule) -> None:
        """Starts recording what ``module(x)`` returns, if the logits are read from it."""
        if self.outputs == FORWARD and self._hook is None:
            self._hook = module.register_forward_hook(self._keep)

    def detach(self) -> None:
        """Stops recording what ``module(x)`` returns."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        self.start_batch()

    def start_batch(self) -> None:
        """Forgets what ``module(x)`` returned before the batch."""
        self._forwarded = []

    def _keep(self, module: Any, arguments: Any, result: Any) -> None:
        self._forwarded.append(result)

    def read(self, step: str, outputs: Any, batch: Any, module: L.LightningModule) -> dict[str, Any]:
        """Returns ``logits`` (float32 ``(B, C)``), ``label`` (int64 ``(B,)``) and, where there is one, ``index``.

        ``index`` is an int64 tensor ``(B,)``. The tensors stay on their device. Logits of -inf become finite, with a
        probability of about 1e-38, unless all of a row are.

        Args:
            step: name of the step, for errors.
            outputs: what it returned.
            batch: its batch.
            module: the module.

        Raises:
            DataError: There are no usable logits or labels; the hint explains what the step has to return.
        """
        raw = self._select(step, outputs, batch, module)
        is_loss = isinstance(raw, Tensor) and raw.ndim == 0
        found: dict[str, Any] = dict(raw) if isinstance(raw, Mapping) else {} if is_loss else {"logits": raw}
        if isinstance(found.get("logits"), np.ndarray):
            found["logits"] = torch.from_numpy(found["logits"])
        logits, label = found.get("logits"), _find_labels(found, outputs, batch)
        if not isinstance(logits, Tensor):
            source = {FORWARD: "module(x)"}.get(str(self.outputs), "outputs(...)" if callable(self.outputs) else step)
            raise DataError(f"{source} returns {_describe(raw)}, not logits", self.remedies["outputs"])
        self._check_logits(step, logits)
        index = found.get("index", batch.get("index") if isinstance(batch, Mapping) else None)
        if index is not None and (not isinstance(index, Tensor) or index.is_floating_point() or index.ndim != 1):
            rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
            if rows.dtype.kind not in "iuf":
                problem = f"index contains {rows.reshape(-1)[0]!r}" if rows.size else "index is empty"
                raise DataError(problem, "index must be one whole number per sample: its position in sample_ids")
            index = torch.from_numpy(rows)
            if index.is_floating_point() or index.ndim != 1:
                problem = f"index has the shape {tuple(index.shape)} and the type {index.dtype}"
                raise DataError(problem, "index must be one whole number per sample: its position in sample_ids")
        if not isinstance(label, Tensor):
            raise DataError(
                f"neither {step} nor the batch ({_describe(batch)}) has labels",
                "batches must be (images, labels, ...) or dicts with 'label'; or return {'logits': ..., 'label': ...}",
            )
        if label.ndim != 1 or label.is_floating_point() or label.is_complex():
            problem = f"labels have the shape {tuple(label.shape)} and the type {label.dtype}"
            hint = "labels must be one class number per sample; or return {'logits': ..., 'label': ...}"
            if label.is_floating_point() and label.ndim == 1:
                hint = "return {'logits': ..., 'label': y.long()} from the step: class numbers from 0"
            raise DataError(problem, hint if label.ndim == 1 else f"{hint}; several labels per sample can't be audited")
        sizes = {"logits": len(logits), "label": len(label), **({} if index is None else {"index": len(index)})}
        if len(set(sizes.values())) > 1:
            problem = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise DataError(f"{step}: {problem} of one batch", "return one row per sample of the batch, in its order")
        tolerance = max(1e-3, torch.finfo(logits.dtype).eps)  # softmax in bfloat16 sums to 1 within 0.004
        logits = logits.detach().float()
        if step not in self._gives_probabilities:
            self._gives_probabilities[step] = _are_probabilities(logits, tolerance)
        if self._gives_probabilities[step]:
            logits = logits.clamp_min(SMALLEST_PROBABILITY).log()
        else:  # excluded classes: as if their probability were the smallest one
            lowest = logits.amax(1, keepdim=True) + math.log(SMALLEST_PROBABILITY)
            logits = torch.where(torch.isneginf(logits), lowest, logits)
        found = {"logits": logits, "label": label.long()}
        return found if index is None else {**found, "index": index.long()}

    def _select(self, step: str, outputs: Any, batch: Any, module: L.LightningModule) -> Any:
        """Returns what ``self.outputs`` selects."""
        if callable(self.outputs):
            return self.outputs(outputs, batch, module)
        if self.outputs == FORWARD:
            calls, self._forwarded = self._forwarded, []
            if len(calls) != 1:
                problem = f"{step} called module(x) {len(calls)} times; outputs='forward' takes the result of one call"
                raise DataError(problem, f"call self(x) once in the step, or: {self.remedies['outputs']}")
            return calls[0]
        if self.outputs is None:
            return outputs
        if not isinstance(outputs, Mapping) or self.outputs not in outputs:
            problem = f"outputs={self.outputs!r}, but {step} returns {_describe(outputs)}"
            raise DataError(problem, self.remedies["outputs"])
        return {**outputs, "logits": outputs[self.outputs]}

    def _check_logits(self, step: str, logits: Tensor) -> None:
        shape = tuple(logits.shape)
        if logits.ndim != 2 or shape[1] < 2 or not logits.is_floating_point():
            single = {1: "torch.stack([-z, z], 1) / 2", 2: "torch.cat([-z, z], 1) / 2"}.get(logits.ndim, "")
            hint = "logits must be (batch, classes), two or more" + (
                f"; return a single logit z of two classes as {single}, if that is what it is" if single else ""
            )
            raise DataError(f"{step}: logits have the shape {shape} and the type {logits.dtype}", hint)
        if self.class_names is not None and shape[1] != len(self.class_names):
            problem = f"logits have {shape[1]} columns, but there are {len(self.class_names)} class names"
            names = format_list(self.class_names, 8)
            raise DataError(f"{problem}: {names}", self.remedies["class_names"])


def _find_labels(found: Mapping[str, Any], outputs: Any, batch: Any) -> Any:
    for place in (found, outputs, batch):
        if isinstance(place, Mapping):
            for key in LABEL_KEYS:
                if isinstance(place.get(key), Tensor):
                    return place[key]
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[1]
    return None


def _are_probabilities(logits: Tensor, tolerance: float) -> bool:
    """Whether all rows are probability distributions, which logits never are by chance."""
    sums = logits.sum(1)
    return bool((logits >= 0).all() and ((sums - 1).abs() < tolerance).all())


def check_scale(logits: np.ndarray, is_trained: bool) -> None:
    """Checks that logits are not sigmoid outputs: numbers from 0 to 1, which do not sum to 1.

    Logits of a network that has learned little may all be within 0 to 1 by chance if there are few classes. So those
    are checked only once it has been trained, and are an error only if they span nearly all of 0 to 1, else a warning.

    Args:
        logits: float ``(N, C)``.
        is_trained: whether they are those of a whole validation, rather than of the first batches.

    Raises:
        DataError: All of them are within 0 to 1, and not by chance; or rows sum to 100.
    """
    if logits.size and logits.min() >= 0 and np.abs(logits.sum(1) - 100).max() < 0.5:
        raise DataError("validation_step returns rows that sum to 100", "return logits, or divide the rows by 100")
    if not logits.size or not (is_trained or logits.shape[1] >= MIN_CLASSES):
        return
    low, high = float(logits.min()), float(logits.max())
    if 0 <= low < high <= 1:
        sums = logits.sum(1)
        problem = (
            f"validation_step returns numbers from {low:.3g} to {high:.3g}, as a sigmoid does, and rows that sum to "
            f"{sums.min():.3g} to {sums.max():.3g}"
        )
        hint = (
            "return the logits before the sigmoid, or probabilities that sum to 1 (p / p.sum(1, keepdim=True)); if "
            "these are logits, return logits.log_softmax(1)"
        )
        if logits.shape[1] < MIN_CLASSES and high - low < SIGMOID_SPAN:
            rank_zero_warn(f"{problem}. If these are not logits: {hint}.")
            return
        raise DataError(f"{problem}: neither logits nor probabilities", hint)


def _describe(value: Any) -> str:
    """Describes what a step returned, or a batch, in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a dict with {format_list(map(str, value), 8) or 'nothing in it'}"
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}" if value.ndim else "the loss alone"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def fixed_order(loader: Any) -> np.ndarray | None:
    """Returns the rows of its dataset that a loader yields in this process, in order.

    Returns:
        int64 array; ``None`` if the order is random or can't be known, as with a dataset that is a stream.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    sampler: Any = loader.sampler
    if loader.batch_sampler is not None:
        if type(loader.batch_sampler) is not BatchSampler:
            return None
        sampler = loader.batch_sampler.sampler
    if isinstance(sampler, SequentialSampler):
        return np.arange(len(sampler))
    distributed = isinstance(sampler, DistributedSampler) and sampler.dataset is loader.dataset and not sampler.shuffle
    if distributed or isinstance(sampler, (list, tuple, range, np.ndarray)):
        return np.fromiter(sampler, np.int64)
    return None
