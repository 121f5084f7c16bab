"""Writes docs/keys.md: the keys of every command as ``mlfix <command> --help`` prints them. A test compares the two.

python scripts/write_keys.py
"""

from __future__ import annotations

from pathlib import Path

from mlfix_train import COMMANDS
from mlfix_train.cli.help import SUMMARIES
from mlfix_train.config.help import describe_keys

TARGET = Path(__file__).resolve().parents[1] / "docs" / "keys.md"
HEAD = """# Keys of the commands

Made by `python scripts/write_keys.py` from the configuration itself.
"""


def keys_page() -> str:
    """Returns the page as Markdown."""
    parts = [HEAD]
    for command in COMMANDS:
        summary = SUMMARIES[command]
        text = f"{summary[0].upper()}{summary[1:]}.\n\n```yaml\n{describe_keys(command)}\n```"
        parts.append(f"## mlfix {command}\n\n{text}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(keys_page(), encoding="utf-8")
    print(TARGET.name)
