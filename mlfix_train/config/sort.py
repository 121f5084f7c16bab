"""Keys of ``mlfix sort``."""

import re
from dataclasses import dataclass, field
from typing import Any

from mlfix_train.audit.scores.slices import compile_regex
from mlfix_train.config.sections import pretrained_spec
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.data.splits import SplitSpec
from mlfix_train.errors import ConfigError, check_choice, check_range
from mlfix_train.models.embedding.settings import EMBEDDERS, LpipsSpec, VisualWordsSpec

KINDS = ("auto", *EMBEDDERS, "embeddings")


@dataclass(frozen=True)
class DuplicatesConfig:
    """Near-duplicates.

    Args:
        threshold: Largest distance between near-duplicates, in the units of the embeddings; 0: identical images only;
            auto: the distance between slightly perturbed copies.
    """

    threshold: int | float | str = "auto"  # OmegaConf takes an int for a float only where it is named

    def __post_init__(self) -> None:
        if isinstance(self.threshold, str):
            check_choice("threshold", self.threshold, ("auto",))
        else:
            check_range("threshold", self.threshold, 0, 1e9)


@dataclass(frozen=True)
class SortConfig:
    """Puts images in an order with similar ones side by side, and finds near-duplicates and outliers.

    Args:
        data: The samples; any reader, set by _target_.
        by: How similarity is measured: pixels | pretrained | network | visual_words | lpips | embeddings | auto
            (embeddings or network if set, pretrained if a key of embedder is, else pixels).
        network: Run directory of a sorting network or a classifier; for by=network, by=visual_words, and by=lpips
            without a trunk.
        embedder: The network of by=pretrained. embedder.name: a timm model, such as vit_small_patch14_dinov2.lvd142m
            (EfficientNet-Lite0 by default, whose weights come with the extra pretrained). embedder.weights: a file with
            its weights, instead of timm's. embedder.size: side that images are scaled to, px. Or your own embedder,
            embedder._target_, instead of by.
        embeddings: embeddings.npy of an earlier sort, or a file with your own (N, D) array, one row per sample.
        width: Dimensions that embeddings are projected to (principal components), 1 to 65,536; null: no projection.
        out: Output folder: embeddings.npy, order.parquet, duplicates.csv, sort.json and panels/.
        initial_order: Output folder of an earlier sort to start from; its order is improved, and new images are
            inserted next to similar ones.
        slices: Slices that get a panel, slices.<name>=<regular expression on the label>.
        n_panels: Labels that get a panel, those with the strongest outliers first, 0 to 1000.
        search_effort: Effort spent on shortening the path, 0 to 10,000; 0 is fastest, 20 shortens it by another 0.5%.
        seed: Seed of sampling, projection and search.
        device: auto | cpu | cuda | cuda:<n>.
        batch_size: Images embedded at a time.
        lpips: Settings of by=lpips.
        visual_words: Settings of by=visual_words.
        duplicates: Settings of near-duplicates.
        split: As in mlfix train; near-duplicates that span both sides are reported.
        pixels: How images are decoded and stored; pixels.cache=outputs/.pixels shares the cache of mlfix train.
    """

    data: Any = field(default_factory=dict)
    by: str = "auto"
    network: str | None = None
    embedder: Any = None
    embeddings: str | None = None
    width: int | None = 128
    out: str = "sort"
    initial_order: str | None = None
    slices: dict[str, str] = field(default_factory=dict)
    n_panels: int = 12
    search_effort: float = 0.7
    seed: int = 0
    device: str = "auto"
    batch_size: int = 256
    lpips: LpipsSpec = field(default_factory=LpipsSpec)
    visual_words: VisualWordsSpec = field(default_factory=VisualWordsSpec)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    split: SplitSpec = field(default_factory=SplitSpec)
    pixels: PixelsConfig = field(default_factory=PixelsConfig)

    def __post_init__(self) -> None:
        for key in ("data", "embedder"):
            value = getattr(self, key)
            if not isinstance(value, dict) and value is not None:
                raise ConfigError(f"{key}={value} is a value, not a section", f"set its keys: {key}.<key>=...")
        check_choice("by", self.by, KINDS)
        if self.embedder and not self.has_own_embedder:
            pretrained_spec(self.embedder)
            if self.kind != "pretrained":
                key, value = next(iter(self.embedder.items()))
                problem = f"embedder.{key}={value} belongs to by=pretrained, but similarity is measured by {self.kind}"
                raise ConfigError(problem, "set by=pretrained, or leave it out")
        for by, key in (("network", "network"), ("visual_words", "network"), ("embeddings", "embeddings")):
            if self.by == by and not getattr(self, key):
                raise ConfigError(f"by={by} needs {key}", f"set {key}=<...>, or by=pixels, which needs no other key")
        if self.width is not None:
            check_range("width", self.width, 1, 65_536)
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
        check_range("n_panels", self.n_panels, 0, 1000)
        check_range("search_effort", self.search_effort, 0, 10_000)
        check_range("seed", self.seed, 0, 2**31)
        check_range("batch_size", self.batch_size, 1, 100_000)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            check_choice("device", self.device, ("auto", "cpu", "cuda"))
        for name, pattern in self.slices.items():
            compile_regex(pattern, f"slices.{name}={pattern}")

    @property
    def kind(self) -> str:
        """What similarity is measured by: one of :data:`KINDS` other than ``auto``."""
        if self.by != "auto":
            return self.by
        if self.embeddings or self.network:
            return "embeddings" if self.embeddings else "network"
        return "pretrained" if self.embedder and not self.has_own_embedder else "pixels"

    @property
    def has_own_embedder(self) -> bool:
        """Whether the embedder is the user's own, instead of what ``by`` says."""
        return bool(self.embedder) and "_target_" in self.embedder
