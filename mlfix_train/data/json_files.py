"""JSON read with the reason where it can't be, and written back as it was laid out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlfix_train.data.atomic import atomic_path


def read_json(path: str | Path) -> tuple[Any, str]:
    """Returns what a file holds and an empty reason, or ``None`` and why it can't be read."""
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig")), ""
    except FileNotFoundError:
        return None, "the file is missing"
    except OSError as error:
        return None, error.strerror or type(error).__name__
    except UnicodeDecodeError as error:
        return None, f"it is not UTF-8 (byte {error.start})"
    except RecursionError:
        return None, "it is nested too deeply"
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            return None, "it is empty"
        return None, f"it is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"


LAYOUTS: tuple[dict[str, Any], ...] = (
    {}, {"separators": (",", ":")}, {"indent": 4}, {"indent": 2}, {"indent": 1}, {"indent": "\t"}, {"indent": 3},
)  # fmt: skip


def layout_of(text: str, content: Any) -> dict[str, Any]:
    """Returns the arguments of ``json.dumps`` that write ``content`` as ``text`` has it, or nearly so."""
    if len(text) < 50_000_000:
        for escape in (False, True):
            for layout in LAYOUTS:
                how = {**layout, "ensure_ascii": escape}
                if json.dumps(content, **how) == text.rstrip():
                    return how
    lines = text[:4096].splitlines()
    indent = len(lines[1]) - len(lines[1].lstrip()) if len(lines) > 1 else 0
    loose = '": ' in text[:4096]
    return {"indent": indent or None, "ensure_ascii": False, "separators": None if loose else (",", ":")}


def write_json_like(original: Path, content: Any, before: Any, target: Path) -> None:
    """Writes ``content``, laid out as ``original`` (which holds ``before``) is, atomically."""
    text = original.read_bytes().decode("utf-8-sig")
    how = layout_of(text, before)
    tail = text[len(text.rstrip()) :]
    with atomic_path(target) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(json.dumps(content, **how) + tail)
