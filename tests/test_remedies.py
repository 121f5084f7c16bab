"""Remedies are true: what a message tells the user to set or to pass exists where the message can appear."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lightning as L
import pytest
import yaml
from hydra.utils import get_object
from shapes import REPO

from mlfix_train.config.explain import known_keys
from mlfix_train.config.schemas import schema_class
from mlfix_train.models.embedding.settings import PretrainedSpec

PACKAGE = REPO / "mlfix_train"
COMMANDS = ("crop", "train", "sort", "audit", "review", "plan", "compare", "rerun", "export", "demo")
SAMPLES = ("train", "sort", "audit", "review")
"""Commands that read samples."""
SHOWN_BY = {
    "commands/inputs.py": (*SAMPLES, "crop", "compare", "export"),
    "commands/train_sweep.py": ("train",),
    "commands/demo.py": COMMANDS,  # it writes the command lines of others
    "data/annotations/write_back.py": ("crop", "export"),
    "data/annotations": ("crop",),
    "data/crops": ("crop",),
    "data/fixes": ("train", "audit", "review", "compare", "export"),
    "data/splits.py": ("train",),
    "data/arms.py": ("train",),
    "data/loading": ("train",),
    "data/pixels": SAMPLES,
    "data/readers": SAMPLES,
    "data/samples.py": SAMPLES,
    "data/plausibility.py": SAMPLES,
    "training": ("train",),
    "models/backbones": ("train",),
    "models/ssl": ("train",),
    "models/embedding": ("sort", "audit"),
    "audit/comparison": ("compare", "train"),
    "audit/review": ("review",),
    "audit/similarity": ("sort",),
    "audit/scores": ("audit", "sort", "compare"),
    "audit/audit.py": ("audit",),
    "audit/files.py": ("review", "export"),
}
"""Commands that can show what a module says; all commands by default."""
KEY = re.compile(r"(?<![\w.<$?&/{-])([a-z_][a-z0-9_]*(?:\.[a-z_<][a-z0-9_>]*)*)=(?!=)")
NO_KEYS = {
    *("key", "sep", "token", "charset", "age", "value", "name_of_column", "full_key", "zoom", "choice", "d", "gpus"),
    *("dataset_type", "labels_path", "data_path", "iscrowd", "keepdim", "shuffle", "is_label_issue", "timm", "default"),
    *("is_label_issue", "sync_dist", "fold", "seed", "max_megapixels", "hydra.searchpath", "hydra.mode"),
    *("launcher", "sweeper", "weights_only"),
}
"""Words before an equals sign that are no key: of HTML, URLs, other tools, columns, folder names."""

OPEN = ("slices", "scores")
"""Sections whose keys are the user's own names."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yields line and text of all strings of a module that are no docstrings; values in f-strings become ``{}``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


@cache
def keys_of(command: str) -> frozenset[str]:
    """The keys of a command, those of its presets and of what users put into open sections."""
    names = {field.name for field in dataclasses.fields(schema_class(command))}
    keys = {key for key in known_keys(command) if key.partition(".")[0] in names} | names
    for preset in (REPO / "configs").glob("*/*.yaml"):
        group, content = preset.parent.name, yaml.safe_load(preset.read_text(encoding="utf-8")) or {}
        if group in names and isinstance(content, dict):
            keys |= set(dotted(content, group))
            if target := content.get("_target_"):
                keys |= {f"{group}.{name}" for name in inspect.signature(get_object(target)).parameters}
    keys |= {f"trainer.{name}" for name in inspect.signature(L.Trainer).parameters} if "trainer" in keys else set()
    if "embedder" in keys:
        keys |= {f"embedder.{field.name}" for field in dataclasses.fields(PretrainedSpec)}
    keys |= {"experiment", "sweep"} if command == "train" else set()
    return frozenset(keys | {key.rpartition(".")[2] for key in keys if key.count(".")})


def dotted(content: dict[str, object], section: str) -> Iterator[str]:
    for name, value in content.items():
        yield f"{section}.{name}"
        if isinstance(value, dict):
            yield from dotted(value, f"{section}.{name}")


@cache
def parameters_of(path: Path) -> frozenset[str]:
    """Names of all parameters and fields of a module: what its callers can pass."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names |= {n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return frozenset(names)


def shown_by(path: Path) -> tuple[str, ...]:
    place = path.relative_to(PACKAGE).as_posix()
    own = (path.stem,) if place.startswith(("commands/", "config/")) and path.stem in COMMANDS else COMMANDS
    return next((commands for start, commands in SHOWN_BY.items() if place.startswith(start)), own)


def named(text: str) -> tuple[str, ...]:
    """The commands whose keys a text itself names, such as ``mlfix audit runs=...``."""
    return tuple(command for command in COMMANDS if re.search(rf"mlfix {command} (?:-m )?'?[a-z_.]+=", text))


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if any(KEY.search(text) for _, text in texts(path)))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_keys_in_messages_exist(path: Path) -> None:
    wrong = []
    for line, text in texts(path):
        for key in KEY.findall(text):
            section, _, last = key.partition(".")
            if section in NO_KEYS or key in NO_KEYS or key in parameters_of(path):
                continue
            if re.search(r"\btrain|\bruns\b", text) and key in keys_of("train"):
                continue  # it speaks of how runs are trained
            commands = named(text) or shown_by(path)
            if named(text) and all(key in keys_of(command) for command in shown_by(path)):
                continue
            is_open = last == "_target_" or "<" in last or section in OPEN
            found = [c for c in commands if key in keys_of(c) or (is_open and section in keys_of(c))]
            everywhere = len(commands) > len(SAMPLES)  # what many commands share speaks of those that have the key
            if not found or (not everywhere and "." not in key and len(found) < len(commands)):
                wrong.append(f"{path.name}:{line}: {key}= is no key of {', '.join(set(commands) - set(found))}: {text}")
    assert not wrong, "\n".join(wrong)


def test_the_check_would_find_a_wrong_key() -> None:
    assert "data.root" in keys_of("train") and "data.root" not in keys_of("compare")
    assert "samples" in keys_of("compare") and "samples" not in keys_of("audit")
    assert "data.test" in keys_of("audit") and "data.tset" not in keys_of("audit")


READERS = sorted({*(PACKAGE / "data/readers").glob("*.py"), *(PACKAGE / "data/annotations").glob("*.py")})


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_keys_of_data_are_those_of_the_reader(path: Path) -> None:
    """``data.file`` is offered by readers that take a file, unless the text names the preset that does."""
    preset = REPO / f"configs/data/{path.stem}.yaml"
    if not preset.exists():
        pytest.skip("what readers share, or a part of one")
    target = yaml.safe_load(preset.read_text(encoding="utf-8"))["_target_"]
    known = set(inspect.signature(get_object(target)).parameters)
    for line, text in texts(path):
        for key in re.findall(r"\bdata\.([a-z_]+)", text.replace("data.yaml", "").replace("data.yml", "")):
            others = re.search(r"\bdata=(?!" + path.stem + r"\b)\w+", text)
            assert key in known or others or key == "_target_", f"line {line}: {text}"
