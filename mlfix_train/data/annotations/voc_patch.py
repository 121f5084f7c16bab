"""Pascal VOC's XML changed in single places, with all else left as it is written, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.parsers import expat
from xml.sax.saxutils import escape


def patch_voc(raw: bytes, new: Mapping[int, str | None]) -> bytes:
    """Returns an annotation with other names.

    Args:
        raw: the file, in whatever encoding it declares.
        new: number of an ``<object>``, from 0, to its new name, or ``None`` where it is taken out.
    """
    for mark, codec in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if raw.startswith(mark):
            plain = raw[2:].decode(codec).encode()
            return mark + _patch(plain, new, "utf-8").decode().encode(codec)
    declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"']", raw.lstrip(b"\xef\xbb\xbf"))
    return _patch(raw, new, declared[1].decode() if declared else "utf-8")


def _patch(raw: bytes, new: Mapping[int, str | None], encoding: str) -> bytes:
    objects = _find(raw, encoding)
    for place in sorted(new, reverse=True):
        begin, end, name = objects[place]
        label = new[place]
        if label is None:
            raw = raw[:begin] + raw[end:]
        elif name is not None:
            raw = raw[: name[0]] + escape(label).encode(encoding, "xmlcharrefreplace") + raw[name[1] :]
    return raw


def _find(raw: bytes, encoding: str) -> list[tuple[int, int, tuple[int, int] | None]]:
    """Returns where each ``<object>`` below the root begins and ends, and the text of its own ``<name>``: bytes."""
    parser = expat.ParserCreate(encoding)
    found: list[tuple[int, int, tuple[int, int] | None]] = []
    path: list[str] = []
    at = {"object": 0, "name": -1}
    named: list[tuple[int, int]] = []

    def opened(tag: str, _: object) -> None:
        path.append(tag)
        if path[1:] == ["object"]:
            at["object"] = parser.CurrentByteIndex
            named.clear()
        elif path[1:] == ["object", "name"] and not named:
            at["name"] = raw.index(b">", parser.CurrentByteIndex) + 1

    def closed(tag: str) -> None:
        here = parser.CurrentByteIndex
        if path[1:] == ["object", "name"] and not named and at["name"] <= here:
            named.append((at["name"], here))
        elif path[1:] == ["object"]:
            closing = raw[here : here + 2] == b"</"
            end = raw.index(b">", here if closing else at["object"]) + 1
            found.append((at["object"], end, named[0] if named else None))
        path.pop()

    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.Parse(raw, True)
    return found
