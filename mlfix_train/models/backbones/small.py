"""A small backbone for small images, registered with timm as ``mlfix_small``.

timm's networks shrink an image by four in their first layers, which at 32 px wipes out the digits of a speed limit;
this one keeps the full resolution in its first layer and is fast on a CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from mlfix_train.errors import check_choice

NATIVE_SIZE = 64
"""Side of the images, px, that it is made for; larger ones cost much and are seen no better."""


class SmallNet(nn.Module):
    """Plain 3x3 convolutions, each followed by max pooling, batch norm and ReLU.

    Pooling first leaves norm and activation a quarter of their work.

    Args:
        widths: Channels of the stages; each stage halves the resolution.
        num_classes: 0 for a backbone without a classifier.
        global_pool: ``grid`` (the averages of the four quarters of the image side by side, since digits have a left and
            a right), ``avg``, or empty for the feature map ``(N, widths[-1], h, w)``.
        in_chans: Channels of the input.
        drop_rate: Dropout before the classifier.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128),
        num_classes: int = 1000,
        global_pool: str = "grid",
        in_chans: int = 3,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_choice("global_pool", global_pool, ("grid", "avg", ""))
        self.num_classes, self.global_pool, self.num_features = num_classes, global_pool, widths[-1]
        self.head_hidden_size = self.num_features * (4 if global_pool == "grid" else 1)
        stages = []
        for before, after in zip((in_chans, *widths[:-1]), widths, strict=True):
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            stages.append(nn.Sequential(conv, nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.ReLU(inplace=True)))
        self.stages = nn.ModuleList(stages)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Returns patterns of parameter names by depth, as timm's ``group_parameters`` takes them."""
        return {"stem": r"^stages\.0", "blocks": r"^stages\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps ``(N, 3, H, W)`` to ``(N, widths[-1], H / 2**stages, W / 2**stages)``."""
        return self.forward_intermediates(x)[-1]

    def forward_intermediates(self, x: Tensor, intermediates_only: bool = True) -> list[Tensor]:
        """Maps ``(N, 3, H, W)`` to the feature maps of all stages, finest first, as timm's networks do."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, 3, H, W)`` to logits, or without a classifier to pooled features or the feature map."""
        x = self.forward_features(x)
        if self.global_pool:
            x = self.fc(self.drop(F.adaptive_avg_pool2d(x, 2 if self.global_pool == "grid" else 1).flatten(1)))
        return x


@register_model
def mlfix_small(pretrained: bool = False, **kwargs: Any) -> SmallNet:
    """Returns a :class:`SmallNet` with random weights; a ValueError if ``pretrained`` is set, since there are none."""
    if pretrained:
        raise ValueError("mlfix_small has no pretrained weights: model.pretrained=false")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # timm passes them to every model
        kwargs.pop(name, None)
    return SmallNet(**kwargs)
