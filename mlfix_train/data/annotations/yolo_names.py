"""New classes at the end of a YOLO list of classes, with the rest of the file left as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def with_classes(text: str, settings: Mapping[str, Any], added: Mapping[int, str], is_yaml: bool) -> str:
    """Returns a ``data.yaml`` or ``classes.txt`` with further classes.

    Args:
        text: the file as it stands.
        settings: what the YAML holds.
        added: number to name, going on where the list ends.
        is_yaml: else a name a line.
    """
    if not added:
        return text
    if not is_yaml:
        body = text.rstrip()
        newline = "\r\n" if "\r\n" in text else "\n"
        tail = text[len(body) :] or newline
        return body + "".join(f"{newline}{label}" for label in added.values()) + tail
    import yaml

    names = settings["names"]
    full = {**names, **added} if isinstance(names, Mapping) else [*names, *added.values()]
    wanted = {**settings, "names": full, **({"nc": len(full)} if "nc" in settings else {})}
    patched = _patched(text, names, added, len(full))
    try:
        if patched and yaml.safe_load(patched) == wanted:
            return patched
    except yaml.YAMLError:
        pass
    return str(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))  # an unusual layout: written anew


def _patched(text: str, names: Any, added: Mapping[int, str], count: int) -> str:
    """Adds the classes where the layout is one of the usual ones; may be wrong in others."""
    text = re.sub(r"(?m)^(nc[ \t]*:[ \t]*)\d+", lambda match: f"{match[1]}{count}", text)
    head = re.search(r"(?m)^names[ \t]*:[ \t]*", text)
    if head is None:
        return ""
    if text[head.end() : head.end() + 1] in ("[", "{"):
        close = text.find("]" if text[head.end()] == "[" else "}", head.end())
        body = text[:close].rstrip()
        pairs = isinstance(names, Mapping)
        words = "".join(f", {f'{number}: ' if pairs else ''}{json.dumps(name)}" for number, name in added.items())
        return body.rstrip(",") + words + text[len(body) :]
    lines = list(re.finditer(r"(?m)^[ \t]*(?:-|\d+[ \t]*:)[ \t]*\S[^\r\n]*", text[head.end() :]))
    last = None
    at = head.end()
    for line in lines:
        between = text[at : head.end() + line.start()]
        if re.sub(r"#[^\r\n]*", "", between).strip():
            break  # another key comes between
        last, at = line, head.end() + line.end()
    if last is None:
        return ""
    indent = re.match(r"[ \t]*", last[0])
    newline = "\r\n" if "\r\n" in text else "\n"
    dash = last[0].lstrip().startswith("-")
    before = newline + (indent[0] if indent else "")
    words = "".join(f"{before}{'-' if dash else f'{number}:'} {json.dumps(name)}" for number, name in added.items())
    return text[:at] + words + text[at:]
