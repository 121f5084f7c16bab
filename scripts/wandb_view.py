"""Saves a view of a W&B project: runs by study and job, with a section for trainings, audits and comparisons.

    pip install 'mlfix-train[wandb-view]'
    wandb login
    python scripts/wandb_view.py <entity>              # or: <entity> <project>, if it is not called mlfix

Prints the address of the view. Each call saves a new one; panels that are there automatically stay.
"""

from __future__ import annotations

import argparse
from typing import Any


def main() -> None:
    """Saves the view."""
    parser = argparse.ArgumentParser(description="Saves a view of a W&B project.")
    parser.add_argument("entity", help="user or team that owns the project")
    parser.add_argument("project", nargs="?", default="mlfix")
    options = parser.parse_args()
    make_view(options.entity, options.project).save()  # prints the address


def make_view(entity: str, project: str) -> Any:
    """Returns the view as a ``wandb_workspaces.workspaces.Workspace``, not yet saved."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    pictures = ["audit/most suspicious", "audit/loss of every sample", "audit/error by label"]
    sections = {
        "trainings": [
            wr.LinePlot(title="held-out error, %", x="epoch", y=["val/error"]),
            wr.LinePlot(title="loss, nats", x="epoch", y=["train/loss", "val/loss"]),
            wr.BarPlot(title="held-out error, %", metrics=["val/error"]),
        ],
        "audits": [wr.MediaBrowser(media_keys=pictures), wr.WeavePanelSummaryTable(table_name="audit/ranking")],
        "comparisons": [wr.WeavePanelSummaryTable(table_name="compare/slices")],
    }
    return ws.Workspace(
        name="mlfix: studies",
        entity=entity,
        project=project,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(groupby=[expr.Metric("Group"), expr.Metric("JobType")]),
    )


if __name__ == "__main__":
    main()
