"""Keys of ``mlfix audit``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlfix_train.config.sections import FixesConfig, has_data
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.errors import ConfigError, check_choice, check_range


@dataclass
class AuditConfig:
    """Ranks labels by suspicion, with slices, panels and a report page: by finished runs, or by the images alone.

    Args:
        runs: A run directory, a directory of runs, the folder of an AuditCallback, a glob, or your own prediction
            files: CSV or Parquet with sample_id, label and one of: a probability column per class, label_prob, or pred
            and loss; or pred_probs.npy. null: none; a linear layer on features of the images predicts the labels.
        labels: Given labels for runs=pred_probs.npy, in the order of its rows (.npy, or CSV with label and sample_id);
            null: labels.npy or labels.csv beside it.
        data: The samples, without runs; images and groups for prediction files; runs already have them.
        pixels: How the images of data are decoded. size: that of the network, or as large as they are, by default.
        order: Output folder of mlfix sort: slices are shown in its order; by=order compares images by its embeddings.
        by: How images are compared: pretrained (a pretrained network, whose features also get a linear layer) | network
            | order | pixels | none | auto (pretrained if weights are at hand or embedder is set, else network, order or
            pixels, the first that is there).
        network: Run directory of a sorting network or a classifier, for by=network.
        embedder: Pretrained network, embedder.name=<timm model>, embedder.weights=<file>, embedder.size=<px>; or your
            own, embedder._target_.
        device: Where features are computed: auto | cpu | cuda | cuda:<n>.
        out: Output folder: ranking.csv, slices.csv, unranked.csv, audit.json, report.html and panels/.
        n_panels: Slices of each kind (pairs, labels, your own, near-duplicates, other faults) that get a panel, 0 to
            1000.
        slices: Your own slices, slices.<name>: a regular expression on the given label, a list of labels, or {column:
            <name>, values: [...]}, {column: <name>, match: <regex>}, {column: <name>} for a slice per value.
        name: Name in titles and in W&B; null: the name of the runs.
        fixes: Fixes to show as marks in the panels.
        review: Output folder of mlfix review: the labels judged there tell how likely each label is wrong, how many
            are, and where to stop.
        scores: Your own label scores, scores.<name>._target_: a LabelScore, or a function that returns one. They become
            columns of the ranking; those with combine_as also contribute to the suspicion.
        logger: Where the audit is logged: wandb or none.
    """

    runs: Any = None
    labels: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    pixels: PixelsConfig = field(default_factory=PixelsConfig)
    order: str | None = None
    by: str = "auto"
    network: str | None = None
    embedder: Any = None
    device: str = "auto"
    out: str = "audit"
    n_panels: int = 12
    slices: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    fixes: FixesConfig = field(default_factory=FixesConfig)
    review: str | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("n_panels", self.n_panels, 0, 1000)
        check_choice("by", self.by, ("auto", "pretrained", "network", "order", "pixels", "none"))
        for by, key in (("order", "order"), ("network", "network")):
            if self.by == by and not getattr(self, key):
                raise ConfigError(f"by={by} needs {key}", f"set {key}=<...>, or by=auto, which needs no other key")
        if self.embedder is not None and not isinstance(self.embedder, dict):
            raise ConfigError(f"embedder={self.embedder} is a value, not a section", "set embedder.name=<timm model>")
        if not self.runs:
            if not has_data(self.data):
                raise ConfigError(
                    "there is nothing to audit: neither runs nor data.root is set",
                    "set data.root=<folder with a folder of images per label>, or runs=<runs of mlfix train>",
                )
            if self.by in ("order", "none"):
                raise ConfigError(f"by={self.by} needs runs", "set runs=<runs of mlfix train>, or by=auto")
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out!r} is not a folder", "set out=<folder>")
