"""Keys of ``mlfix audit``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlfix_train.config.sections import FixesConfig
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.errors import ConfigError, check_choice, check_range


@dataclass
class AuditConfig:
    """Ranks the held-out labels of finished runs by suspicion, with estimates, panels and a report page.

    Args:
        runs: A run directory, a directory of runs, the folder of an AuditCallback, a glob, or your own prediction
            files: CSV or Parquet with sample_id, label and one of: a probability column per class, label_prob, or pred
            and loss; or pred_probs.npy.
        labels: Given labels for runs=pred_probs.npy, in the order of its rows (.npy, or CSV with label and sample_id);
            null: labels.npy or labels.csv beside it.
        data: Images and groups for prediction files; runs already have them.
        pixels: How the images of data are decoded. size: 64 by default.
        order: Output folder of mlfix sort: neighbours are found with its embeddings, slices are shown in its order.
        neighbours: How similar images are found: order | pixels | none | auto (order if it is set, else pixels).
        out: Output folder: ranking.csv, slices.csv, unranked.csv, audit.json, report.html and panels/.
        n_panels: Slices of each kind (pairs, labels, your own, near-duplicates) that get a panel, 0 to 1000.
        slices: Your own slices, slices.<name>: a regular expression on the given label, a list of labels, or {column:
            <name>, values: [...]}, {column: <name>, match: <regex>}, {column: <name>} for a slice per value.
        name: Name in titles and in W&B; null: the name of the runs.
        fixes: Fixes to show as marks in the panels.
        scores: Your own label scores, scores.<name>._target_: a LabelScore, or a function that returns one. They become
            columns of the ranking; those with combine_as also contribute to the suspicion.
        logger: Where the audit is logged: wandb or none.
    """

    runs: Any = "???"
    labels: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    pixels: PixelsConfig = field(default_factory=PixelsConfig)
    order: str | None = None
    neighbours: str = "auto"
    out: str = "audit"
    n_panels: int = 12
    slices: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    fixes: FixesConfig = field(default_factory=FixesConfig)
    scores: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("n_panels", self.n_panels, 0, 1000)
        check_choice("neighbours", self.neighbours, ("auto", "order", "pixels", "none"))
        if self.neighbours == "order" and not self.order:
            raise ConfigError("neighbours=order needs order", "set order=<output folder of mlfix sort>")
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out!r} is not a folder", "set out=<folder>")
