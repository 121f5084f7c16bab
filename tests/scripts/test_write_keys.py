"""docs/keys.md is what ``--help`` prints."""

from __future__ import annotations

import runpy

from shapes import REPO


def test_the_page_of_keys_is_up_to_date() -> None:
    keys_page = runpy.run_path(str(REPO / "scripts/write_keys.py"))["keys_page"]
    assert (REPO / "docs/keys.md").read_text() == keys_page(), "run: python scripts/write_keys.py"
