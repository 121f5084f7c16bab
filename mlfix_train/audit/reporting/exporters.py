"""An audit as plain files that FiftyOne, Label Studio and cleanlab read."""

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

SCORES = ("suspicion", "rank", "loss", "self_confidence", "aum", "neighbour_disagreement", "twin_disagreement",
          "outlierness")  # fmt: skip


def write_fiftyone(rows: pd.DataFrame, paths: Mapping[str, str], labels: Sequence[str], folder: Path) -> list[Path]:
    """Writes ``labels.json`` and ``predictions.json`` for ``fiftyone.types.FiftyOneImageClassificationDataset``.

    Both name images by their full path, so that no image is copied. The first holds the given labels with the audit's
    scores as attributes, the second the suggested labels.

    Args:
        rows: rows of a ranking.
        paths: sample id to image file.
        labels: all labels.
        folder: where the files go.
    """
    scores = [name for name in SCORES if rows[name].notna().any()]
    given, suggested = {}, {}
    for row in rows.to_dict("records"):
        key = Path(paths[row["sample_id"]]).as_posix()
        known = {name: _number(row[name]) for name in scores if pd.notna(row[name])}
        kept = {"sample_id": row["sample_id"], "suggested_label": row["suggested_label"],
                "is_label_issue": bool(row["is_label_issue"]), **known}  # fmt: skip
        given[key] = {"label": str(row["given_label"]), "attributes": kept}
        suggested[key] = {"label": str(row["suggested_label"])}
    told = {
        "classes": None,
        "suggested_by": "mlfix audit",
        "labels": suggested,
    }  # no fixes: nobody has looked at them
    return [
        _write(folder / "labels.json", {"classes": None, "labels": given}),
        _write(folder / "predictions.json", told),
    ]


def write_label_studio(
    rows: pd.DataFrame, paths: Mapping[str, str], labels: Sequence[str], folder: Path, url: str
) -> list[Path]:
    """Writes ``tasks.json`` (the suggested label as a prediction) and ``label_config.xml``.

    Args:
        rows: rows of a ranking.
        paths: sample id to image file.
        labels: all labels.
        folder: where the files go.
        url: address of an image; ``{path}`` stands for the sample id, ``{file}`` for the full path, both as in URLs.
    """
    tasks = []
    for row in rows.to_dict("records"):
        name = str(row["sample_id"])
        image = url.replace("{path}", quote(name)).replace("{file}", quote(Path(paths[name]).as_posix()))
        result = {"from_name": "label", "to_name": "image", "type": "choices",
                  "value": {"choices": [str(row["suggested_label"])]}}  # fmt: skip
        data = {"image": image, "sample_id": name, "given_label": str(row["given_label"]),
                "suspicion": _number(row["suspicion"]), "rank": int(row["rank"])}  # fmt: skip
        prediction = {"model_version": "mlfix-train", "score": _number(row["label_score"]), "result": [result]}
        tasks.append({"data": data, "predictions": [prediction]})
    choices = "\n".join(f"    <Choice value={quoteattr(str(label))}/>" for label in [*labels, INVALID])
    layout = (
        '<View>\n  <Header value="given: $given_label"/>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <Choices name="label" toName="image" choice="single" showInline="true">\n{choices}\n  </Choices>\n</View>\n'
    )
    with atomic_path(folder / "label_config.xml") as temporary:
        temporary.write_text(layout, encoding="utf-8")
    return [_write(folder / "tasks.json", tasks), folder / "label_config.xml"]


def write_cleanlab(
    rows: pd.DataFrame, labels: Sequence[str], folder: Path, probabilities: np.ndarray | None
) -> list[Path]:
    """Writes ``label_issues.csv`` with the columns of cleanlab's Datalab, and what cleanlab's functions take.

    These are ``labels.npy`` (int64 N), ``class_names.json`` and, where there are any, ``pred_probs.npy`` (float32 N,C,
    out of sample), rows in the order of the table.

    Args:
        rows: N rows of a ranking, in the order wanted.
        labels: the C labels.
        folder: where the files go.
        probabilities: ``N,C``, rows as in ``rows``.
    """
    columns = ["sample_id", "is_label_issue", "label_score", "given_label", "predicted_label"]
    with atomic_path(folder / "label_issues.csv") as temporary:
        rows[columns].to_csv(temporary, index=False, float_format="%.9g")
    files = [folder / "label_issues.csv", _write(folder / "class_names.json", list(labels))]
    arrays = {"labels": pd.Index(labels).get_indexer(pd.Index(rows["given_label"])).astype(np.int64)}
    if probabilities is not None:
        arrays["pred_probs"] = probabilities / probabilities.sum(1, keepdims=True)
    for name, values in arrays.items():
        with atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, values)
        files.append(folder / f"{name}.npy")
    return files


def _number(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _write(path: Path, content: Any) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    return path
