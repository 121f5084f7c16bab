"""Settings of embedders: the sections ``embedder``, ``lpips`` and ``visual_words``. Does not import torch."""

from dataclasses import dataclass

from mlfix_train.errors import ConfigError, check_choice, check_range

EMBEDDERS = ("pixels", "pretrained", "network", "visual_words", "lpips")
TRUNKS = ("alex", "vgg", "squeeze")


@dataclass(frozen=True)
class PretrainedSpec:
    """A network with pretrained weights, as it comes.

    Args:
        name: A timm model, such as vit_small_patch14_dinov2.lvd142m; null: EfficientNet-Lite0, whose weights are those
            of the extra pretrained.
        weights: File with its weights; null: timm's, from the caches of this machine or the model hub.
        size: Side that images are scaled to first, px, 16 to 1024; null: the network's own, 160 for EfficientNet-Lite0.
    """

    name: str | None = None
    weights: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        for key in ("name", "weights"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigError(f"{key}={value} is not text", f"set {key}=<...>, or leave it out")
        if self.size is not None:
            check_range("size", self.size, 16, 1024)
            if not isinstance(self.size, int):
                raise ConfigError(f"size={self.size} is not an integer", "use an integer")


@dataclass(frozen=True)
class LpipsSpec:
    """LPIPS, a perceptual distance between images.

    Args:
        trunk: alex | vgg | squeeze; not used if network is set.
        weights: File with the trunk's weights; null: torchvision's, downloaded once.
        size: Side that images are scaled to first, px, 16 to 1024; null: as stored.
        rerank: Candidates that are found in the projection and re-ranked by their exact distance, 0 to 1000; 0: no
            re-ranking.
    """

    trunk: str = "alex"
    weights: str | None = None
    size: int | None = None
    rerank: int = 40

    def __post_init__(self) -> None:
        check_choice("trunk", self.trunk, TRUNKS)
        if self.size is not None:
            check_range("size", self.size, 16, 1024)
        check_range("rerank", self.rerank, 0, 1000)


@dataclass(frozen=True)
class VisualWordsSpec:
    """The bag of visual words, the similarity measure of the published method.

    Args:
        count: Number of visual words, 2 to 100,000.
        stage: Stage of the network whose feature maps are clustered: -1 is the last, -2 the one before.
    """

    count: int = 1024
    stage: int = -2

    def __post_init__(self) -> None:
        check_range("count", self.count, 2, 100_000)
        check_range("stage", self.stage, -100, 100)
