"""The view of W&B: what would be sent to the server, which is not there."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from shapes import REPO

ws = pytest.importorskip("wandb_workspaces.workspaces", reason="needs the extra wandb-view")


def test_a_view_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("wandb_view", REPO / "scripts/wandb_view.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sent: list[Any] = []

    def upsert(view: Any) -> dict[str, Any]:
        sent.append(view)
        return {"upsertView": {"view": {"name": "nw-1-v", "id": "1"}}}

    monkeypatch.setattr(ws.internal, "upsert_view2", upsert)
    monkeypatch.setattr(ws.Workspace, "url", "https://localhost/view")
    monkeypatch.setattr(sys, "argv", ["wandb_view.py", "me"])
    script.main()
    [view] = sent
    assert (view.entity, view.project, view.display_name) == ("me", "mlfix", "mlfix: studies")
    section = view.spec.section
    assert [key.name for key in section.run_sets[0].grouping] == ["group", "jobType"]
    shown = {one.name: len(one.panels) for one in section.panel_bank_config.sections}
    assert shown == {"trainings": 3, "audits": 2, "comparisons": 1}
    keys = view.spec.model_dump_json()
    for key in ("val/error", "audit/most suspicious", "audit/ranking", "compare/slices"):
        assert key in keys
