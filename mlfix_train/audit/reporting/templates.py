"""Pages and texts from the Jinja2 templates in ``templates/``.

Templates named ``*.html.j2`` are autoescaped: whatever a label holds, it only ever becomes text.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlfix_train.audit.comparison.looks import looks_sentence
from mlfix_train.audit.comparison.verdict import decimals, format_p, signed

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Returns the text of a template in :data:`FOLDER`."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "decimals": decimals,
        "percent": lambda value, digits=2: "–" if value is None else f"{value:.{digits}f}",
        "points": format_effect,
        "interval": lambda ci, digits=2: "" if ci is None else f"[{signed(ci[0], digits)}, {signed(ci[1], digits)}]",
        "p_cell": p_cell,
        "p_text": format_p,
        "looks_sentence": looks_sentence,
        "md_cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
    }
    return environment


def p_cell(p: float | None) -> str:
    """Formats a p-value for a table: ``0.034``, ``<0.001``; ``–`` for ``None``."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_effect(value: float | None, digits: int = 2) -> str:
    """Formats an effect with its sign: ``+0.35``, ``−0.02``, ``0.00``; ``–`` for ``None``."""
    return "–" if value is None else f"{'+' if round(value, digits) > 0 else ''}{signed(value, digits)}"
