"""Text of reports: labels that are measured, shortened so that they stay distinct, and safe to draw; the next step."""

import functools
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import ImageFont

JUDGED = 100
"""Samples to judge before the number of wrong labels can be told."""


def _font_file(bold: bool = False) -> Path:
    from matplotlib import get_data_path

    return Path(get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@functools.lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans of ``size`` px."""
    return ImageFont.truetype(_font_file(bold), size)


@functools.lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    joiners = {0x200C, 0x200D}  # invisible, but they shape Arabic and Indic scripts
    harmful = ("Cc", "Cf", "Zl", "Zp")
    glyphs = FT2Font(str(_font_file())).get_charmap()
    return frozenset(joiners.union(code for code in glyphs if unicodedata.category(chr(code)) not in harmful))


def printable(text: str) -> str:
    r"""Returns ``text`` with what can't be drawn as escapes: ``\n``, control and direction marks, missing glyphs.

    A character without a glyph becomes its escape (``\u505c``) rather than an empty box, so that labels stay distinct.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if ord(char) in _glyphs() else char.encode("unicode_escape").decode() for char in text)


def shorten(text: str, width_px: float, font: ImageFont.FreeTypeFont, tail: float = 0.6) -> str:
    """Returns ``text`` if it is at most ``width_px`` wide, else as much of its two ends as fits around an ellipsis.

    What can't be drawn is escaped first (:func:`printable`). ``tail`` is the fraction of the kept characters that come
    from the end, 0 to 1: labels of one family differ near their ends (``...-limit-120--g1``).
    """
    text = printable(text)
    if len(text) <= 4 * width_px and font.getlength(text) <= width_px:
        return text

    def cut(kept: int) -> str:
        end = round(kept * tail)
        return f"{text[: kept - end]}…{text[len(text) - end :]}"

    low, high = 0, min(len(text) - 1, int(width_px))  # glyphs are at least about 1 px wide
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if font.getlength(cut(kept)) <= width_px else (low, kept - 1)
    return cut(low) if low or font.getlength("…") <= width_px else ""


def cut_middle(text: str, limit: int) -> str:
    """Returns ``text`` in at most ``limit`` characters: its two ends around an ellipsis, where labels differ."""
    if len(text) <= limit:
        return text
    end = round(0.6 * (limit - 1))
    return f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def shorten_all(texts: Iterable[str], width_px: float, font: ImageFont.FreeTypeFont) -> dict[str, str]:
    """Returns the short form of each text; where several would look the same, they are cut elsewhere."""
    short = {text: shorten(text, width_px, font) for text in dict.fromkeys(texts)}

    def cut(text: str, skip: int, tail: float) -> str:
        lead = "…" if skip else ""
        return lead + shorten(text[skip:], width_px - font.getlength(lead), font, tail)

    for _ in range(2):  # a group may split into smaller groups that still look the same
        lookalikes: defaultdict[str, list[str]] = defaultdict(list)
        for text, form in short.items():
            lookalikes[form].append(text)
        for group in (group for group in lookalikes.values() if len(group) > 1):
            pairs = zip(min(group), max(group), strict=False)  # their common prefix is everyone's
            shared = "".join(left for left, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            word = len(re.sub(r"\w+$", "", shared))
            for skip, tail in itertools.product((word, len(shared), 0), (0.35, 0.85)):
                tried = short | {text: cut(text, skip, tail) for text in group}
                if len(set(tried.values())) > len(set(short.values())):
                    short = tried
                if len({short[text] for text in group}) == len(group):
                    break
    return short


def next_step(about: Mapping[str, Any]) -> str:
    """Returns in a sentence or two what to do after an audit: the first line of the report and of the summary.

    Args:
        about: the content of ``audit.json``, see :attr:`mlfix_train.audit.audit.Audit.about`.
    """
    estimates, ranked = about.get("estimates") or {}, int(about["ranked"])
    if estimates.get("clear"):
        found = estimates["review_yield"]
        if not found["stop_rank"]:
            return "No label stands out as wrong. Judge a random sample on the review page to be sure."
        samples = "the first sample" if found["stop_rank"] == 1 else f"the first {found['stop_rank']:,} samples"
        return (
            f"Review {samples} of the ranking: about {found['expected_found']:,.0f} of the "
            f"{estimates['wrong']:,.0f} wrong labels expected are among them."
        )
    if ranked <= JUDGED:
        return "Review the whole ranking from the top: it is short."
    return (
        f"Judge the sample of {JUDGED} that the review page draws, then review from the top: how many labels are "
        "wrong, and how far down to go, can't be told before."
    )
