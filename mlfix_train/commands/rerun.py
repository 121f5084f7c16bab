"""``mlfix rerun``: a study again, from its card, with another group's copy of the data."""

import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.audit.comparison.study_card import FORMAT
from mlfix_train.audit.comparison.verdict import decimals, signed
from mlfix_train.commands import compare, train
from mlfix_train.commands.inputs import read_samples
from mlfix_train.commands.progress import align_columns
from mlfix_train.config.compare import AppliedFixes, CompareConfig
from mlfix_train.config.rerun import RerunConfig
from mlfix_train.config.schemas import from_plain
from mlfix_train.data.files.documents import read_json
from mlfix_train.data.fixes.table import write_fixes
from mlfix_train.data.samples import table_fingerprint
from mlfix_train.errors import RunError, format_list
from mlfix_train.training.trainer import count_processes

log = logging.getLogger(__name__)


def run(cfg: RerunConfig) -> dict[str, Any]:
    """Trains the runs of a study card, unless they are finished, and compares them.

    Returns:
        What ``summary.json`` of the new comparison holds.

    Raises:
        RunError: a card that can't be read or has no settings, or data that are not those of the card.
    """
    card = read_card(Path(cfg.card).expanduser())
    data = {**card["settings"]["data"], **cfg.data}
    fingerprint = table_fingerprint(read_samples(data, uses_labels=True))
    if fingerprint != card["data"]["fingerprint"]:
        theirs = card["data"]["fingerprint"]
        problem = f"these are not the data of {cfg.card}: fingerprint {fingerprint[:12]}, not {theirs[:12]}"
        if "data" not in cfg.ignore:
            raise RunError(problem, "set data.root to the same data (the same files and labels), or ignore=[data]")
        log.warning("%s", problem)
    compared, samples = card["comparison"], _sample_table(cfg, card["comparison"]["samples"])
    out = Path(cfg.out).expanduser()
    fixes = write_fixes(pd.DataFrame(card["fixes"]["list"], columns=["sample_id", "new_label"]), out / "fixes.csv")
    names = card["runs"]
    for seed in dict.fromkeys(seed for seeds in names.values() for seed in seeds):
        for arm in (arm for arm, seeds in names.items() if seed in seeds):
            train.run(_settings(cfg, card, data, str(fixes), arm, int(seed.removeprefix("seed="))))
    study = Path(cfg.outputs).expanduser() / card["name"]
    planned = card["planned"]
    arms: dict[str, Any] = {arm: str(study / arm) for arm in names}
    comparison = CompareConfig(
        **arms,
        fixes=AppliedFixes(path=str(fixes), ignore=compared["ignored_fixes"]),
        slices=planned["slices"],
        primary=planned["primary"],
        name=card["name"],
        out=str(out),
        samples=samples,
        **{key: compared[key] for key in ("group", "paired", "ignore", "resamples", "seed")},
    )
    summary = compare.run(comparison)
    _print_both(card, summary)
    return summary


def _sample_table(cfg: RerunConfig, theirs: dict[str, str] | None) -> str | None:
    """Returns where the table of slices and groups that the study used is."""
    if theirs is None:
        return None
    path = Path(cfg.samples or theirs["file"]).expanduser()
    if not path.is_file():
        problem = f"the study took slices and groups from {theirs['file']}, and {path} is not there"
        raise RunError(problem, "set samples=<your copy of it>")
    if sha256(path.read_bytes()).hexdigest() != theirs["sha256"]:
        problem = f"{path} is another file than the one that the study took slices and groups from ({theirs['file']})"
        if "data" not in cfg.ignore:
            raise RunError(problem, "set samples=<the same file>, or ignore=[data]")
        log.warning("%s", problem)
    return str(path)


def read_card(path: Path) -> dict[str, Any]:
    """Reads a study card.

    Raises:
        RunError: it can't be read, is of prediction files, which record no settings, or of runs that one process can't
            train one after the other.
    """
    card, problem = read_json(path) if path.is_file() else (None, "there is no such file")
    if problem or not isinstance(card, dict) or card.get("format") != FORMAT:
        raise RunError(
            f"card={path} can't be read: {problem or 'it is no study card of this version'}",
            "set card=<out>/study.json",
        )
    if not card["settings"]:
        hint = "a card of run directories can be repeated"
        raise RunError(f"card={path} has no settings: it is of prediction files", hint)
    others = sorted({name for names in card["runs"].values() for name in names if not re.fullmatch(r"seed=\d+", name)})
    problem = f"its runs are called {format_list(others, 3)}" if others else ""
    if card["settings"]["split"].get("folds"):
        problem = f"its runs hold out {card['settings']['split']['folds']} folds"
    if count_processes(card["settings"]["trainer"]) > 1:
        problem = "its runs train in several processes"
    if problem:
        hint = "train them with mlfix train -m and the settings of the card, then run mlfix compare"
        raise RunError(f"card={path} can't be repeated by one command: {problem}", hint)
    return card


def _settings(cfg: RerunConfig, card: dict[str, Any], data: dict[str, Any], fixes: str, arm: str, seed: int) -> Any:
    """Returns the configuration of one run."""
    theirs = {key: value for key, value in card["settings"].items() if key != "stop"}
    ours = {"data": data, "outputs": cfg.outputs, "name": card["name"], "arm": arm, "seed": seed, "report": "line"}
    fixed = {**theirs["fixes"], "path": fixes}
    pixels = {**theirs["pixels"], "cache": str(Path(cfg.outputs).expanduser() / ".pixels")}
    return from_plain("train", {**theirs, **ours, "fixes": fixed, "pixels": pixels})


def _print_both(card: dict[str, Any], summary: dict[str, Any]) -> None:
    table = [["training effect", "then", "now"]]
    for name, then in card["results"].items():
        texts = []
        for effect in (then, summary["slices"][name]["effect"]):
            interval, digits = effect["training_ci95"], decimals(effect)
            text = "–" if effect["training"] is None else signed(effect["training"], digits)
            texts.append(f"{text} [{signed(interval[0], digits)}, {signed(interval[1], digits)}]" if interval else text)
        table.append([name, *texts])
    if card["planned"]["looks"]:
        print("\nthen: with looks at the study, which its interval allows for; now: at the end alone")
    print()
    for line in align_columns(table):
        print(line)
