"""Fixes from other tools' files, which give the label of every reviewed sample (no fix if it is the given one).

- FiftyOne, ``labels.json`` of an exported ``FiftyOneImageClassificationDataset`` (``{"classes": [...], "labels":
  {image: label}}``), or ``samples.json`` of an exported ``FiftyOneDataset``, whose field ``ground_truth`` counts and
  whose tag ``invalid`` excludes a sample.
- Label Studio, JSON (of all tasks, or of one), JSON-MIN or CSV: the choice of each annotation that was not cancelled;
  the sample is ``data.sample_id``, or the path in ``data.image``.
- cleanlab, a CSV with ``is_label_issue``: the labels of a column ``corrected_label``, if there is one (an empty cell is
  not reviewed yet); else every issue is marked ``invalid``.
"""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.tables import Table
from mlfix_train.data.samples import INVALID
from mlfix_train.errors import FixesError, format_list

log = logging.getLogger(__name__)

FIELDS = ("ground_truth", "label", "classification")
CHOICES = ("label", "choice", "choices")
CORRECTED = ("corrected_label", "clean_label", "new_label")
LABEL_STUDIO_COLUMNS = ("annotation_id", "annotator", "lead_time")
"""Columns of Label Studio's CSV that other fixes files don't have."""
CLEANLAB_COLUMNS = ("is_label_issue", "corrected_label", "clean_label")
"""Columns of cleanlab's table that other fixes files don't have."""
Record = dict[str, Any]


def read_json_fixes(path: Path) -> list[Record]:
    """Reads FiftyOne's or Label Studio's JSON.

    Records have ``row`` (from 1), ``sample_id`` (a path, as in the file), ``new_label``, ``reviewer`` and ``time``.

    Raises:
        FixesError: The file is missing, not JSON, or of neither tool; a sample without a name or label.
    """
    if not path.exists():
        raise FixesError(f"fixes.path={path} does not exist", "set the file that the other tool exported")
    content, problem = read_json(path)
    if problem:
        raise FixesError(f"{path} can't be read as JSON: {problem}", "export it again")
    if isinstance(content, Mapping) and isinstance(content.get("labels"), Mapping):
        return _fiftyone_labels(content, path)
    if isinstance(content, Mapping) and isinstance(content.get("samples"), Sequence):
        return _fiftyone_samples(content["samples"], path)
    if isinstance(content, Mapping) and isinstance(content.get("task"), Mapping):  # a file of a target storage
        content = {**content["task"], "annotations": [content]}
    if isinstance(content, Mapping) and isinstance(content.get("data"), Mapping):
        content = [content]
    if isinstance(content, Sequence) and not isinstance(content, str) and all(isinstance(t, Mapping) for t in content):
        return _label_studio(content, path)
    hint = "use a CSV with sample_id,new_label, FiftyOne's labels.json or samples.json, or Label Studio's JSON"
    raise FixesError(f"{path} is not a known kind of fixes file", hint)


def _fiftyone_labels(content: Mapping[str, Any], path: Path) -> list[Record]:
    if "suggested_by" in content:
        hint = "use the labels.json that FiftyOne exported after the review"
        raise FixesError(f"{path} contains suggestions of mlfix, which nobody has reviewed", hint)
    classes = content.get("classes") or []
    if not isinstance(classes, list):
        raise FixesError(f"{path}: classes is not a list", "export it again")
    records = []
    for row, (name, value) in enumerate(content["labels"].items(), start=1):
        label = value.get("label") if isinstance(value, Mapping) else value
        if isinstance(label, int) and not isinstance(label, bool):
            if not 0 <= label < len(classes):
                problem = f"{path}: {name} has the label number {label}, but there are {len(classes)} classes"
                raise FixesError(problem, "export it again, with all classes")
            label = classes[label]
        if label is not None:  # unlabelled samples have no fix
            records.append(_record(row, name, label, path))
    return records


def _fiftyone_samples(samples: Sequence[Any], path: Path) -> list[Record]:
    records = []
    for row, sample in enumerate(samples, start=1):
        if not isinstance(sample, Mapping) or not sample.get("filepath"):
            raise FixesError(f"{path}: sample {row} has no filepath", "export it again")
        tags = sample.get("tags") or []
        if isinstance(tags, list) and INVALID in tags:
            records.append(_record(row, sample["filepath"], INVALID, path))
            continue
        field = next((name for name in FIELDS if name in sample), None)
        value = sample.get(field) if field else None
        if field is None or not (value is None or isinstance(value, Mapping)):
            missing = f"has no label in any of the fields {format_list(FIELDS)}"
            hint = "name the field with the label (a Classification) ground_truth"
            raise FixesError(f"{path}: sample {row} ({sample['filepath']}) {missing}", hint)
        if value is not None and value.get("label") is not None:
            records.append(_record(row, sample["filepath"], value["label"], path))
    return records


def _label_studio(tasks: Sequence[Mapping[str, Any]], path: Path) -> list[Record]:
    records = []
    for row, task in enumerate(tasks, start=1):
        is_json_min = not isinstance(task.get("data"), Mapping)
        data = task if is_json_min else task["data"]
        name = data.get("sample_id") or _path_of(str(data.get("image") or ""))
        if not name:
            raise FixesError(f"{path}: task {row} has no sample_id and no image", "export it again, as JSON")
        if is_json_min:
            found = next((task[key] for key in CHOICES if task.get(key)), None)
            choice = _single_choice(found, f"{path}: task {row} ({name})")
            if choice is not None:
                more = {"reviewer": task.get("annotator"), "time": task.get("updated_at") or task.get("created_at")}
                records.append(_record(row, name, choice, path, **more))
            continue
        for annotation in task.get("annotations") or task.get("completions") or []:
            if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result") or [], list):
                raise FixesError(f"{path}: task {row} ({name}) has a malformed annotation", "export it again")
            if annotation.get("was_cancelled"):
                continue
            values = [result.get("value") for result in annotation.get("result") or [] if isinstance(result, Mapping)]
            where = f"{path}: task {row} ({name})"
            found = [value for value in values if isinstance(value, Mapping) and value.get("choices")]
            choices = [_single_choice(value, where) for value in found[:1]]
            if choices:
                more = {"reviewer": annotation.get("completed_by"), "time": annotation.get("updated_at")}
                records.append(_record(row, name, choices[0], path, **more))
    _check_reviewed(tasks, records, path)
    return records


def _check_reviewed(tasks: Sequence[Mapping[str, Any]], records: list[Record], path: Path) -> None:
    """Raises a FixesError if no task has an annotation, and logs how many have none."""
    keys = ("annotations", "completions", "annotation_id", *CHOICES)
    without = sum(not any(task.get(key) for key in keys) for task in tasks)
    predicted = sum(bool(task.get("predictions")) for task in tasks)
    if tasks and without == len(tasks):
        what = f"; {predicted:,} have predictions, which nobody has reviewed" if predicted else ""
        problem = f"{path}: none of the {len(tasks):,} tasks has an annotation{what}"
        raise FixesError(problem, "review the tasks in Label Studio (submit each), and export them again")
    if without:
        log.info("%s: %d of %d tasks are not annotated", path, without, len(tasks))
    if tasks and not records and not any(isinstance(task.get("data"), Mapping) for task in tasks):
        fields = format_list(dict.fromkeys(key for task in tasks for key in task), 12)
        hint = 'export as JSON, or name the control <Choices name="choice" ...>'
        raise FixesError(f"{path}: no task has a field {', '.join(CHOICES)}; there are {fields}", hint)


def _single_choice(value: Any, where: str) -> Any:
    """Returns the choice of a value of JSON or JSON-MIN: text, a list, or a mapping with ``choices``.

    Raises:
        FixesError: There are several.
    """
    if isinstance(value, Mapping):
        value = value.get("choices")
    if isinstance(value, list) and len(value) > 1:
        hint = "keep one for each image; data with several labels per sample are not supported"
        raise FixesError(f"{where} has several choices: {format_list(value)}", hint)
    return (value[0] if value else None) if isinstance(value, list) else value


def label_studio_fixes(table: Table) -> list[Record]:
    """Turns Label Studio's CSV, a row per annotation, into records of fixes.

    Raises:
        FixesError: An annotation without an image, or with several choices.
    """
    texts = {str(name): table.text(name, FixesError) for name in table.frame.columns}
    tasks = [dict(zip(texts, cells, strict=True)) for cells in zip(*texts.values(), strict=True)]
    for task in tasks:
        for key in CHOICES:
            if task.get(key, "").startswith(("{", "[")):  # several choices are JSON
                with contextlib.suppress(ValueError):
                    task[key] = json.loads(task[key])
    records = _label_studio(tasks, table.path)
    lines = table.lines if table.lines is not None else range(1, len(tasks) + 1)
    return [{**record, "row": lines[record["row"] - 1]} for record in records]


def _path_of(url: str) -> str:
    """Returns the path in an image's URL; Label Studio's local files have it after ``?d=``."""
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _record(row: int, name: Any, label: Any, path: Path, reviewer: Any = None, time: Any = None) -> Record:
    if not isinstance(label, (str, int, float)) or isinstance(label, bool):
        raise FixesError(f"{path}: {name} has the label {label!r}, which is not text", "use one label, or invalid")
    if label == "":
        raise FixesError(f"{path}: {name} has an empty label", "use a label, or invalid")
    who = reviewer.get("email", reviewer.get("id")) if isinstance(reviewer, Mapping) else reviewer
    more = {"reviewer": "" if who is None else str(who), "time": "" if time is None else str(time)}
    return {"row": row, "sample_id": str(name).replace("\\", "/"), "new_label": str(label), **more}


def cleanlab_fixes(table: Table) -> list[Record]:
    """Turns cleanlab's table into records of fixes.

    Raises:
        FixesError: No column ``sample_id``, or an ``is_label_issue`` that is neither true nor false.
    """
    path, names = table.path, list(table.frame.columns)
    if "sample_id" not in names:
        hint = "add a column sample_id (cleanlab keeps the order of its input; `mlfix export to=cleanlab` writes it)"
        raise FixesError(f"{path}: cleanlab's table has no column sample_id, but {format_list(names, 8)}", hint)
    corrected = next((name for name in CORRECTED if name in names), None)
    if corrected is None and {"suspicion", "rank"} <= set(names):
        hint = "use a fixes file; or `mlfix export to=cleanlab` and, in its CSV, a column corrected_label"
        raise FixesError(f"{path} is a ranking of mlfix audit, which nobody has reviewed", hint)
    ids, flags = table.text("sample_id", FixesError), table.text("is_label_issue", FixesError)
    answers = table.text(corrected, FixesError) if corrected else [""] * len(ids)
    records, unreviewed = [], 0
    for row, (name, flag, answer) in enumerate(zip(ids, map(str.lower, flags), answers, strict=True)):
        if flag not in ("true", "false", "1", "0", "1.0", "0.0"):
            raise FixesError(f"{path}: {table.place(row)} has is_label_issue={flag!r}", "use True or False")
        if answer or (not corrected and flag in ("true", "1", "1.0")):
            unreviewed += not answer
            line = row + 1 if table.lines is None else table.lines[row]
            records.append(_record(line, name, answer or INVALID, path, "" if answer else "cleanlab"))
    if unreviewed:
        log.warning("%s: %d label issues are treated as invalid; no person has reviewed them", path, unreviewed)
    return records
