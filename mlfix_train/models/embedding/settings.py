"""Settings of embedders: the sections ``lpips`` and ``visual_words`` of ``mlfix sort``. Does not import torch."""

from dataclasses import dataclass

from mlfix_train.errors import check_choice, check_range

EMBEDDERS = ("pixels", "network", "visual_words", "lpips")
TRUNKS = ("alex", "vgg", "squeeze")


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
