"""The wheel carries the configs: built, installed away from the checkout, and run there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mlfix_train/configs/train.yaml", "hydra_plugins/mlfix_launchers.py"} <= set(names)
    templates = (
        "report.html.j2",
        "report.css",
        "report.js",
        "comparison.html.j2",
        "comparison.md.j2",
        "comparison.css",
    )
    assert {f"mlfix_train/audit/reporting/templates/{name}" for name in templates} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]
    site = wheel.parent / "site"
    # -I keeps the checkout and PYTHONPATH out; the libraries are this environment's, the package is the installed one.
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if 'editable' not in p]; sys.path.insert(0, {str(site)!r}); "
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]; "
        "import mlfix_train; from mlfix_train.cli.main import main; print(mlfix_train.__file__); "
        "sys.argv = ['mlfix', 'train', '--cfg', 'job', 'data.root=x']; main()"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(site))
    assert "backbone: resnet50" in ran.stdout
