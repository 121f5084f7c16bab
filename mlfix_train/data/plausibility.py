"""One look over data that was read: what is no error of any row, but unlikely of the whole.

Labels that are folders of a split, file names, measurements or lists of labels, or the same but for their spelling;
boxes that are there several times. Each finding names the value and says what to do.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from mlfix_train.data.readers.files import SPLIT_NAMES
from mlfix_train.errors import DataError, format_list

FOLDERS = ("docs", "images", "imgs", "labels", "annotations", "unlabeled", "unlabelled", "__macosx", "meta", "metadata")
"""Names of folders that are seldom classes."""
MIN_SAMPLES = 20
"""Samples from which on the number of labels is judged."""
MANY_LABELS, NEARLY_ALL = 0.5, 0.9
"""Labels per sample from which on they are unlikely, and impossible, to be classes."""
FEW_NUMBERS, OFTEN = 20, 10
"""More numbers with decimals, each of fewer samples on average, are measurements; others can be classes."""
SELDOM = 1.5
"""Samples per number up to which fewer numbers are measurements, too, from five on."""
MOST = 0.5
"""Share of samples from which on labels that look like lists are lists."""
NUMBER = re.compile(r"[+-]?\d*[.,]?\d+(?:[eE][+-]?\d+)?")
LIST_SIGNS = ("|", ";", ",")
BOXES_PER_PHOTO = 500
"""Mean boxes per photo from which on there is a note."""
REPEATED_BOXES = 0.2
"""Share of boxes that are exactly another box from which on there is a note."""


@dataclass(frozen=True)
class Finding:
    """What is unlikely about data.

    Attributes:
        problem: One sentence that names the value.
        hint: What to do.
        is_fatal: Whether training on these labels, or judging them, makes no sense.
    """

    problem: str
    hint: str
    is_fatal: bool = False

    def __str__(self) -> str:
        return f"{self.problem}: {self.hint}"


def check_samples(table: pd.DataFrame, source: str, uses_labels: bool = True) -> list[str]:
    """Looks over the labels of a sample table and returns notes, one sentence each; normal data give none.

    Args:
        table: Sample table.
        source: What notes and errors call it.
        uses_labels: Whether the labels are learnt or judged; if not, there are notes only.

    Raises:
        DataError: The labels are numbers to predict, lists of labels, file names, or the names of splits.
    """
    findings = look_over_labels(table["label"])
    missing = table.index[table["label"].isna()]
    if 0 < len(missing) < len(table):
        shown = f"{len(missing):,} of {len(table):,} samples have no label: {format_list(missing, 3)}"
        findings.append(Finding(shown, "they are neither trained on nor ranked"))
    for finding in findings:
        if finding.is_fatal and uses_labels:
            raise DataError(f"{source}: {finding.problem}", finding.hint)
    return [f"{source}: {finding}" for finding in findings]


def look_over_labels(labels: pd.Series) -> list[Finding]:
    """Returns what is unlikely about labels.

    Args:
        labels: Label of each sample; missing ones don't count.
    """
    counts = {str(label): int(count) for label, count in labels.value_counts().items()}
    if not counts:
        return []
    whole = _lists(counts) or _measurements(counts) or _names_of_samples(counts)
    findings = [*whole, *_folders(counts)]
    if not whole:
        findings += [*_same_but_for_spelling(counts), *_single_samples(counts)]
    return findings


def _lists(counts: Mapping[str, int]) -> list[Finding]:
    total = sum(counts.values())
    hint = "give each sample one label; data with several labels per sample (multi-label) are not supported"
    brackets = [label for label in counts if re.fullmatch(r"\s*(?:\[.*\]|\{.*\}|\(.*,.*\))\s*", label, re.DOTALL)]
    if sum(counts[label] for label in brackets) > MOST * total:
        problem = f"the labels of {sum(counts[label] for label in brackets):,} samples are lists, such as {brackets[0]}"
        return [Finding(problem, hint, is_fatal=True)]
    for sign in LIST_SIGNS:
        parts = {label: [part.strip() for part in label.split(sign)] for label in counts if sign in label}
        n_samples = sum(counts[label] for label in parts)
        if not parts or not _are_combined(parts.values(), counts):
            continue
        example = next(iter(parts))
        shown = f"{n_samples:,} of {total:,} samples have several labels, separated by {sign!r}, such as {example!r}"
        if n_samples > MOST * total:
            return [Finding(shown, hint, is_fatal=True)]
        return [Finding(shown, f"each combination counts as a label of its own; {hint}")]
    return []


def _are_combined(lists: Collection[list[str]], labels: Collection[str]) -> bool:
    """Whether parts of labels are combined freely, as several labels are, and not the levels of a hierarchy."""
    places: dict[str, set[int]] = {}
    for parts in lists:
        if "" in parts:
            return False
        for place, part in enumerate(parts):
            places.setdefault(part, set()).add(place)
    moving = sum(len(found) > 1 or part in labels for part, found in places.items())
    return moving >= max(2, len(places) / 3) or (moving > 0 and len(places) <= 3)


def _measurements(counts: Mapping[str, int]) -> list[Finding]:
    numbers = [label for label in counts if NUMBER.fullmatch(label)]
    total = sum(counts.values())
    if sum(counts[label] for label in numbers) < NEARLY_ALL * total:
        return []
    decimal = [label for label in numbers if not float(label.replace(",", ".")).is_integer()]
    if not decimal:
        return []
    example = format_list(sorted(decimal), 3)
    often = OFTEN if len(counts) > FEW_NUMBERS else SELDOM
    if total >= often * len(counts) or len(counts) < 5:
        hint = "each number counts as a class; if they are measurements, group them into ranges with names"
        return [Finding(f"labels are numbers with decimals, such as {example}", hint)]
    problem = f"labels are {len(numbers):,} different numbers with decimals, such as {example}: a regression target"
    hint = "use classes as labels: group measurements into ranges with names; if the numbers are names of classes, "
    return [Finding(problem, f"{hint}put a letter before each, such as v{sorted(decimal)[0]}", True)]


def _names_of_samples(counts: Mapping[str, int]) -> list[Finding]:
    total = sum(counts.values())
    if total < MIN_SAMPLES or len(counts) < MANY_LABELS * total:
        return []
    problem = f"there are {len(counts):,} different labels for {total:,} samples, such as {format_list(counts, 3)}"
    hint = "use the class as the label; file names, ids and measurements are none"
    return [Finding(problem, hint, is_fatal=len(counts) >= NEARLY_ALL * total)]


def _folders(counts: Mapping[str, int]) -> list[Finding]:
    splits = [label for label in counts if label.lower() in SPLIT_NAMES]
    others = [label for label in counts if label.lower() in FOLDERS]
    if {label.lower() for label in splits} <= {"train", "training"} and not others:  # a train is a class, too
        return []
    names = [*splits, *others]
    shown = format_list((f"{name!r} ({counts[name]:,} samples)" for name in names), 4)
    problem = f"labels are called {shown}, as folders are that are no classes"
    hint = "train/ and val/ count as splits if they alone are in data.root, each with a folder per label"
    if len(splits) == len(counts):
        return [Finding(problem, f"set the folder that has one folder per label as data.root; {hint}", True)]
    return [Finding(problem, f"if they are none, move them out of the data; {hint}")] if names else []


def _same_but_for_spelling(counts: Mapping[str, int]) -> list[Finding]:
    alike: dict[str, list[str]] = {}
    for label in counts:
        text = " ".join(unicodedata.normalize("NFKC", label).split())
        alike.setdefault(text.casefold(), []).append(label)
    findings = []
    for labels in [labels for labels in alike.values() if len(labels) > 1]:
        shown = format_list((f"{label!r} ({counts[label]:,} samples)" for label in labels), 4)
        forms = {unicodedata.normalize("NFC", label) for label in labels}
        by = "case" if len({label.casefold() for label in labels}) == 1 else "blanks or Unicode form"
        by = "Unicode form" if len(forms) == 1 else by
        findings.append(Finding(f"labels differ only by {by}: {shown}", "give them one name if they are one class"))
    if len(findings) > 3:
        rest = Finding(f"{len(findings) - 3:,} more labels differ only by case or blanks", "give each one name")
        findings = [*findings[:3], rest]
    return findings


def _single_samples(counts: Mapping[str, int]) -> list[Finding]:
    single = sorted(label for label, count in counts.items() if count == 1)
    if not single or sum(counts.values()) < MIN_SAMPLES:
        return []
    problem = f"{len(single):,} label(s) have one sample: {format_list(single)}"
    return [Finding(problem, "no model can learn and judge it; add samples, or use a label that others have")]


def check_boxes(boxes: pd.DataFrame, n_photos: int) -> list[str]:
    """Looks over the boxes of photos and their labels, and returns notes, one sentence each.

    Args:
        boxes: As in :class:`mlfix_train.data.annotations.base.Annotations`.
        n_photos: Number of photos.
    """
    usable = boxes[boxes["problem"] == ""]
    if not len(usable):
        return []
    notes = [str(finding) for finding in look_over_labels(usable["label"])]
    same = usable.duplicated(["photo", "label", "x_min", "y_min", "x_max", "y_max"])
    if same.mean() > REPEATED_BOXES:
        first = usable[same].iloc[0]
        text = f"{same.sum():,} of {len(usable):,} boxes are exactly another one, such as {first['label']!r} in"
        notes.append(f"{text} {first['photo']}: the annotations may be there twice; each gives a crop")
    mean = len(usable) / max(n_photos, 1)
    if mean > BOXES_PER_PHOTO:
        most, count = Counter(usable["photo"]).most_common(1)[0]
        text = f"there are {mean:,.0f} boxes per photo, {count:,} in {most}"
        notes.append(f"{text}: if the lines of the annotations hold polygons or key points, check how they were read")
    return notes
