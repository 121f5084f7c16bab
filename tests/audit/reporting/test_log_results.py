"""What goes to a tracker."""

from __future__ import annotations

import pytest

from mlfix_train.audit.reporting.log_results import artifact_name


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("demo-original-seed-0", "demo-original-seed-0"),
        ("seed=0,fold=3", "seed-0-fold-3"),
        ("höhe/a b", "h-he-a-b"),
        ("停", "run"),
        ("", "run"),
        ("x" * 300, "x" * 100),
    ],
)
def test_artifact_names_are_what_wandb_takes(text: str, wanted: str) -> None:
    assert artifact_name(text) == wanted
