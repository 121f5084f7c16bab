"""Finds the elements of an XML file by their bytes, and changes single places without touching the rest."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape

from mlfix_train.data.files.documents import decode_text

START_TAG = re.compile(rb"<[^\s/>]+(?:\s+[^\s=]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*(/?)>")
LOOKED_AT = 4096
"""Bytes of a file in which the first element is looked for."""
Edit = tuple[int, int, str]
"""First and last byte of what is replaced, and the new markup."""


class Element(NamedTuple):
    """An element: tags from below the root down to its own, and its bytes.

    ``start`` to ``end`` is all of it, ``inner`` to ``outer`` what is between its tags (both are -1 in ``<tag/>``).
    """

    path: tuple[str, ...]
    start: int
    inner: int
    outer: int
    end: int


def root_tag(raw: bytes) -> str:
    """Returns the name of the first element in the beginning of an XML file; empty if there is none."""
    text = re.sub(rb"<!--.*?-->", b"", raw.replace(b"\0", b""), flags=re.S)  # UTF-16
    found = re.search(rb"<([A-Za-z_][\w.:-]*)[\s/>]", text)
    return found[1].decode() if found else ""


def edit_xml(raw: bytes, find_edits: Callable[[bytes, list[Element]], Iterable[Edit]]) -> bytes:
    """Returns an XML file with some places changed; every other byte stays, and so does its encoding.

    Args:
        raw: The file.
        find_edits: Called with the file, in an encoding that contains ASCII, and its elements in the order of their
            ends; returns what is replaced. Edits don't overlap.
    """
    if b"\0" in raw[:4] or raw.startswith((b"\xff\xfe", b"\xfe\xff")):  # expat reports byte positions in UTF-8
        text, encoding, mark = decode_text(raw)
        return mark + _edit(text.encode(), "utf-8", find_edits).decode().encode(encoding)
    declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"']", raw.lstrip(b"\xef\xbb\xbf"))
    return _edit(raw, declared[1].decode() if declared else "utf-8", find_edits)


def _edit(raw: bytes, encoding: str, find_edits: Callable[[bytes, list[Element]], Iterable[Edit]]) -> bytes:
    for start, end, text in sorted(find_edits(raw, _find_elements(raw, encoding)), reverse=True):
        raw = raw[:start] + text.encode(encoding, "xmlcharrefreplace") + raw[end:]
    return raw


def _find_elements(raw: bytes, encoding: str) -> list[Element]:
    parser = expat.ParserCreate(encoding)
    found: list[Element] = []
    path: list[tuple[str, int]] = []  # the open elements, and where they start

    def on_end(_: str) -> None:
        here, start = parser.CurrentByteIndex, path[-1][1]
        tags = tuple(tag for tag, _ in path[1:])
        path.pop()
        opening = START_TAG.match(raw, start)
        assert opening is not None
        if opening[1]:
            found.append(Element(tags, start, -1, -1, opening.end()))
        else:
            found.append(Element(tags, start, opening.end(), here, raw.index(b">", here) + 1))

    parser.StartElementHandler = lambda tag, _: path.append((tag, parser.CurrentByteIndex))
    parser.EndElementHandler = on_end
    parser.Parse(raw, True)
    return found


def attribute_span(raw: bytes, start: int, name: str) -> tuple[int, int] | None:
    """Returns the bytes of the value of an attribute, quotes included, of the element that begins at ``start``."""
    opening = START_TAG.match(raw, start)
    assert opening is not None
    pattern = re.compile(rb"\s([^\s=]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
    found = (match for match in pattern.finditer(raw, start, opening.end()) if match[1] == name.encode())
    return next((match.span(2) for match in found), None)


def quote(text: str) -> str:
    """Returns text as the value of an attribute, in double quotes."""
    return f'"{escape(text, {chr(34): "&quot;", chr(10): "&#10;", chr(9): "&#9;", chr(13): "&#13;"})}"'
