"""The page's script in one piece, as a notebook widget needs it; the server serves its modules as they are."""

import re
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


def bundle_script(folder: Path = ASSETS, entry: str = "review") -> str:
    """Returns a module and all that it imports as one module, each after those that it needs.

    Names at the top level must be unique among the modules, imports must not rename, and none may import ``entry``.
    """
    texts: dict[str, str] = {}
    opened: set[str] = set()

    def add(name: str) -> None:
        if name in opened:
            return
        opened.add(name)
        text = (folder / f"{name}.js").read_text(encoding="utf-8")
        for other in _IMPORT.findall(text):
            add(other)
        text = _IMPORT.sub("", text)
        texts[name] = text if name == entry else _EXPORT.sub("", text)

    add(entry)
    return "\n".join(texts.values())
