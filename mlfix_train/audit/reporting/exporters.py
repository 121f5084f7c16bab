"""A ranking as plain files that FiftyOne, Label Studio and cleanlab read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.samples import INVALID

_NEIGHBOUR_SCORES = ("neighbour_disagreement", "twin_disagreement", "outlierness")
SCORES = ("suspicion", "rank", "loss", "self_confidence", "aum", *_NEIGHBOUR_SCORES)


def apply_fixes(ranking: pd.DataFrame, fixes: pd.DataFrame) -> pd.DataFrame:
    """Returns a ranking with fixes applied.

    Relabeled samples have their new label, given and suggested, and are no label issue; those marked invalid are left
    out.

    Args:
        ranking: a ranking.
        fixes: indexed by ``sample_id``, with ``new_label``.
    """
    new = fixes["new_label"].reindex(ranking["sample_id"]).set_axis(ranking.index)
    fixed = new.notna()
    return ranking.assign(
        given_label=new.where(fixed, ranking["given_label"]),
        suggested_label=new.where(fixed, ranking["suggested_label"]),
        is_label_issue=ranking["is_label_issue"] & ~fixed,
    )[new != INVALID]


def write_fiftyone(ranking: pd.DataFrame, paths: Mapping[str, str], folder: Path) -> list[Path]:
    """Writes ``labels.json`` and ``predictions.json`` for ``fiftyone.types.FiftyOneImageClassificationDataset``.

    Both name images by absolute path, so no image is copied. The first holds the given labels with the audit's scores
    as attributes, the second the suggested labels.

    Args:
        ranking: the samples to export.
        paths: ``sample_id`` to image file.
        folder: where the files go.

    Returns:
        The files.
    """
    scores = [name for name in SCORES if ranking[name].notna().any()]
    given: dict[str, Any] = {}
    suggested: dict[str, Any] = {}
    for row in ranking.to_dict("records"):
        key = Path(paths[row["sample_id"]]).as_posix()
        attributes = {
            "sample_id": row["sample_id"],
            "suggested_label": row["suggested_label"],
            "is_label_issue": bool(row["is_label_issue"]),
            **{name: _short(row[name]) for name in scores if pd.notna(row[name])},
        }
        given[key] = {"label": str(row["given_label"]), "attributes": attributes}
        suggested[key] = {"label": str(row["suggested_label"])}
    # With `suggested_by`, our importer rejects these as fixes: nobody has reviewed them.
    predictions = {"classes": None, "suggested_by": "mlfix audit", "labels": suggested}
    return [
        _write_json(folder / "labels.json", {"classes": None, "labels": given}),
        _write_json(folder / "predictions.json", predictions),
    ]


def write_label_studio(
    ranking: pd.DataFrame, paths: Mapping[str, str], labels: Sequence[str], folder: Path, url: str
) -> list[Path]:
    """Writes ``tasks.json``, with the suggested labels as predictions, and ``label_config.xml``.

    Args:
        ranking: the samples to export.
        paths: ``sample_id`` to image file.
        labels: all labels.
        folder: where the files go.
        url: of an image; ``{path}`` stands for the ``sample_id``, ``{file}`` for the absolute path, both URL-encoded.

    Returns:
        The files.
    """
    tasks = []
    for row in ranking.to_dict("records"):
        name = str(row["sample_id"])
        image = url.replace("{path}", quote(name)).replace("{file}", quote(Path(paths[name]).as_posix()))
        choice = {"choices": [str(row["suggested_label"])]}
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": choice}
        prediction = {"model_version": "mlfix-train", "score": _short(row["label_score"]), "result": [result]}
        data: dict[str, Any] = {"image": image, "sample_id": name, "given_label": str(row["given_label"])}
        data |= {"suspicion": _short(row["suspicion"]), "rank": int(row["rank"])}
        tasks.append({"data": data, "predictions": [prediction]})
    choices = "\n".join(f"    <Choice value={quoteattr(str(label))}/>" for label in [*labels, INVALID])
    config = (
        '<View>\n  <Header value="given: $given_label"/>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <Choices name="label" toName="image" choice="single" showInline="true">\n{choices}\n  </Choices>\n</View>\n'
    )
    with atomic_path(folder / "label_config.xml") as temporary:
        temporary.write_text(config, encoding="utf-8")
    return [_write_json(folder / "tasks.json", tasks), folder / "label_config.xml"]


def write_cleanlab(
    ranking: pd.DataFrame, labels: Sequence[str], folder: Path, pred_probs: np.ndarray | None
) -> list[Path]:
    """Writes ``label_issues.csv`` with the columns of cleanlab's Datalab, and the arrays that its functions take.

    These are ``labels.npy`` (int64 ``(N,)``), ``class_names.json`` and, if given, ``pred_probs.npy`` (``(N, C)``, out
    of sample), all in the order of the table.

    Args:
        ranking: N samples.
        labels: C labels.
        folder: where the files go.
        pred_probs: predicted probabilities ``(N, C)``.

    Returns:
        The files.
    """
    columns = ["sample_id", "is_label_issue", "label_score", "given_label", "predicted_label"]
    with atomic_path(folder / "label_issues.csv") as temporary:
        ranking[columns].to_csv(temporary, index=False, float_format="%.9g")
    files = [folder / "label_issues.csv", _write_json(folder / "class_names.json", list(labels))]
    arrays = {"labels": pd.Index(labels).get_indexer(pd.Index(ranking["given_label"])).astype(np.int64)}
    if pred_probs is not None:
        arrays["pred_probs"] = pred_probs / pred_probs.sum(1, keepdims=True)
    for name, values in arrays.items():
        with atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, values)
        files.append(folder / f"{name}.npy")
    return files


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _write_json(path: Path, content: Any) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    return path
