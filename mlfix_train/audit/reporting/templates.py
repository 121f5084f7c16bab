"""Pages and texts from the Jinja2 templates in ``templates/``.

Templates named ``*.html.j2`` are autoescaped: whatever a label holds, it only ever becomes text.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlfix_train.audit.comparison.verdict import certainty, format_p, signed

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
        "percent": lambda value: "–" if value is None else f"{value:.2f}",
        "points": format_effect,
        "interval": lambda ci: "" if ci is None else f"[{signed(ci[0])}, {signed(ci[1])}]",
        "p_cell": lambda p: "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        "p_text": format_p,
        "certainty": certainty,
        "md_cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
    }
    return environment


def format_effect(value: float | None) -> str:
    """Formats an effect with its sign: ``+0.35``, ``−0.02``, ``0.00``; ``–`` for ``None``."""
    return "–" if value is None else f"{'+' if round(value, 2) > 0 else ''}{signed(value)}"
