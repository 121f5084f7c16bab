"""The page's modules, and the one script that a widget gets."""

from __future__ import annotations

import re
from pathlib import Path

from mlfix_train.audit.review.bundle import ASSETS, bundle_script

TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


def test_each_module_stands_after_those_it_imports(tmp_path: Path) -> None:
    (tmp_path / "review.js").write_text(
        'import { b } from "./b.js";\nimport {\n  c,\n} from "./c.js";\n\n'
        "export function start() {}\nexport default b;\n"
    )
    (tmp_path / "b.js").write_text('import { c } from "./c.js";\n\nexport const b = c + 1;\n')
    (tmp_path / "c.js").write_text("export const c = 1;\n")
    bundle = "const c = 1;\n\n\nconst b = c + 1;\n\n\nexport function start() {}\nexport default b;\n"
    assert bundle_script(tmp_path) == bundle


def test_the_modules_can_be_put_into_one() -> None:
    bundle = bundle_script()
    assert not re.search(r"^import|import\(", bundle, re.MULTILINE)
    assert re.findall(r"^export .*", bundle, re.MULTILINE) == [
        "export function start(root, connection, options = {}) {",
        "export default {",
    ]
    names = TOP_LEVEL.findall(bundle)
    assert len(names) == len(set(names)), "two modules use the same name"
    heads = {path.read_text().partition("\n")[0] for path in ASSETS.glob("*.js")}
    assert heads <= set(bundle.splitlines()), "a module is never imported"


def test_a_module_is_read_in_one_sitting() -> None:
    for path in ASSETS.glob("*.js"):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("// ") and len(lines) <= 400, path.name
