"""Settings of batches, augmentation and views. Importing this module does not import torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlfix_train.errors import ConfigError, check_choice, check_ranges

SAMPLINGS = ("balanced", "shuffled")
POSITIVE_PAIRS = ("image", "group")
EVENNESS = 0.8
"""Evenness of the labels, see :func:`evenness`, below which ``auto`` draws balanced batches: that of two labels, one of
which has 82% of the samples."""


@dataclass(frozen=True)
class LoaderSpec:
    """How batches are made.

    Args:
        batch_size: Training samples per step and process.
        eval_batch_size: Held-out samples per step and process.
        sampling: balanced (all labels equally often, drawn with replacement) | shuffled (every sample once per epoch) |
            auto (balanced if some labels have far more samples than others).
        workers: Loader processes; 0: read in the main process, which is fast with a pixel store.
        cache_on_device: Keep all images in the memory of the training device: auto (on a GPU, if they fit into half
            of its free memory) | true | false. The batches are the same either way.
    """

    batch_size: int = 128
    eval_batch_size: int = 512
    sampling: str = "auto"
    workers: int = 0
    cache_on_device: bool | str = "auto"

    def __post_init__(self) -> None:
        check_choice("sampling", self.sampling, (*SAMPLINGS, "auto"))
        check_ranges(self, batch_size=(2, 1_000_000), eval_batch_size=(2, 1_000_000), workers=(0, 256))
        if not isinstance(self.cache_on_device, bool) and self.cache_on_device != "auto":
            raise ConfigError(f"cache_on_device={self.cache_on_device} is not valid", "use auto, true or false")

    def for_labels(self, labels: Sequence[str]) -> "LoaderSpec":
        """Returns the settings for samples with these labels ``(N,)``: ``sampling`` is no longer ``auto``."""
        if self.sampling != "auto":
            return self
        return replace(self, sampling="balanced" if evenness(labels) < EVENNESS else "shuffled")


def evenness(labels: Sequence[str]) -> float:
    """Returns how even the labels ``(N,)`` of samples are, 0 to 1: 1 if each of C labels has as many samples.

    The effective number of labels, exp of the entropy of their shares in nats (Hill, 1973), divided by C.
    """
    if not len(labels):
        return 1.0
    counts = np.unique(np.asarray(labels, dtype=str), return_counts=True)[1]
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / len(counts))


@dataclass(frozen=True)
class AugmentSpec:
    """How strongly training images are augmented, on the device.

    The defaults are those of the published experiment on traffic signs, preset signs: no flips, since left and right
    matter for signs.

    Args:
        enabled: Whether training images are augmented at all.
        blur: Share of the images that get a Gaussian blur of 3 or 5 pixels, 0 to 1.
        rotate: Largest rotation, in degrees, 0 to 180.
        zoom: Largest enlargement, 1 to 4; the position of the crop is random.
        warp: Largest perspective shift of a corner, as a share of half the side, 0 to 0.4.
        lighting: Largest change of brightness and of contrast, 0 to 0.9.
        p_affine: Probability of each of rotation, zoom and warp, 0 to 1.
        p_lighting: Probability of each of brightness and contrast, 0 to 1.
        flip: Share of the images that are mirrored, left to right, 0 to 1.
        crop: Smallest crop, as a share of the image's area, 0.01 to 1; its sides differ by a third at most.
        auto: Take those of earlier runs of the same name, if there are any, and do without flips where the labels name
            left or right, or are numbers or letters.
    """

    enabled: bool = True
    blur: float = 0.25
    rotate: float = 10.0
    zoom: float = 1.1
    warp: float = 0.2
    lighting: float = 0.2
    p_affine: float = 0.75
    p_lighting: float = 0.75
    flip: float = 0.0
    crop: float = 1.0
    auto: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, blur=(0, 1), p_affine=(0, 1), p_lighting=(0, 1), rotate=(0, 180), zoom=(1, 4))
        check_ranges(self, warp=(0, 0.4), lighting=(0, 0.9), flip=(0, 1), crop=(0.01, 1))

    def for_labels(self, labels: Sequence[str]) -> "AugmentSpec":
        """Returns the settings for these classes, without ``auto``: no flips if they may change a label."""
        if not self.auto:
            return self
        return replace(self, auto=False, flip=0.0 if mirrored_labels(labels) else self.flip)


def mirrored_labels(labels: Sequence[str]) -> str:
    """Returns why a mirrored image may need another label, such as ``left-turn and right-turn``; empty if it may not.

    Labels that name left or right, or that all are numbers or single characters, which may stand in the images.
    """
    named = [label for label in labels if re.search(r"(?<![a-z])(left|right)(?![a-z])", label.lower())]
    if named:
        return f"the labels name left or right: {named[0]}"
    if labels and all(re.fullmatch(r"\d+|\w", label) for label in labels):
        return "the labels are numbers or letters"
    return ""


@dataclass(frozen=True)
class ViewSpec:
    """How much the two views of an image may differ, for a sorting network.

    Args:
        crop: Smallest crop, as a share of the image's area, 0.01 to 1.
        aspect_ratio: Largest ratio of a crop's sides, 1 to 4.
        rotate: Largest rotation, in degrees, 0 to 180.
        warp: Largest perspective shift of a corner, as a share of half the side, 0 to 0.4.
        lighting: Largest change of brightness and of contrast, 0 to 0.9.
        blur: Share of the views that are blurred, 0 to 1.
        keep_color: Leave hue and saturation unchanged; for images where color matters, such as signs.
        hue: Largest shift of the hue, in degrees, 0 to 180; only without keep_color.
        saturation: Largest change of saturation, 0 to 1; only without keep_color.
        gray: Share of the views without color, 0 to 1; only without keep_color.
        flip: Share of the views that are mirrored, 0 to 1; 0 where left and right matter.
        positive_pair: image (both views are of one image) | group (the second view is of another image of the same
            group, if there is one; use it where a group shows one object, such as the frames of a track: the network
            then learns from real changes of light, size and sharpness. Wrong where a group is a photo of different
            objects).
    """

    crop: float = 0.6
    aspect_ratio: float = 1.33
    rotate: float = 10.0
    warp: float = 0.1
    lighting: float = 0.7
    blur: float = 0.1
    keep_color: bool = True
    hue: float = 36.0
    saturation: float = 0.4
    gray: float = 0.2
    flip: float = 0.0
    positive_pair: str = "image"

    def __post_init__(self) -> None:
        if not isinstance(self.keep_color, bool):
            raise ConfigError(f"keep_color={self.keep_color} is not true or false", "use true or false")
        check_choice("positive_pair", self.positive_pair, POSITIVE_PAIRS)
        check_ranges(self, crop=(0.01, 1), aspect_ratio=(1, 4), rotate=(0, 180), warp=(0, 0.4), lighting=(0, 0.9))
        check_ranges(self, hue=(0, 180), blur=(0, 1), saturation=(0, 1), gray=(0, 1), flip=(0, 1))
