"""Judges embeddings without labels by labels: is an image's nearest neighbour from another track of the same class?

    python scripts/bench_sorting_network.py <GTSRB: folder of class folders> --network NAME=<run> [--network ...]

Prints 1-nearest-neighbour accuracy over all images, each image's own track left out, for the pixels (principal
components, plain and as ``mlfix sort`` takes them), for each network as trained, the same network untrained, and the
published bag of visual words of both; and where planted errors lie: labels of 5% of the speed limits are changed, and
counted is how many are among the 5% of their class that are most unlike their neighbours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mlfix_train.audit.similarity.callback import label_agreement
from mlfix_train.audit.similarity.seriation import unlikeness
from mlfix_train.commands import embedding
from mlfix_train.config import build as config
from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions
from mlfix_train.data.pixels.store import PixelSpec, open_store
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.models.embedding.network import Standardize, embed
from mlfix_train.models.embedding.pca import fit_projection
from mlfix_train.models.ssl.encoder import Encoder


class Judge:
    """The images, and what is asked of each embedding of them."""

    def __init__(self, root: str, size: int) -> None:
        self.table = read_folder(root, group=r"(.+)_\d+\.jpg")
        self.store = open_store(self.table, PixelSpec(size=size), Path("outputs/.pixels"))
        limits = sorted({str(label) for label in self.table["label"] if str(label).startswith("speed-limit")})
        self.planted = plant_confusions(self.table, 0.05, confusions_among(limits, 2), 0)

    def say(self, name: str, features: np.ndarray) -> None:
        """Prints the figures of an embedding."""
        accuracy = label_agreement(features, self.table)
        wrong = (self.planted["label"] != self.planted[TRUE_LABEL]).to_numpy()
        found = total = 0
        for label in sorted(set(self.planted["label"][wrong])):
            rows = np.flatnonzero((self.planted["label"] == label).to_numpy())
            scores = unlikeness(embedding.as_unit(features[rows]))
            head = np.argsort(-scores, kind="stable")[: max(1, len(rows) // 20)]
            found, total = found + int(wrong[rows[head]].sum()), total + int(wrong[rows].sum())
        print(f"{name:<58} {accuracy:6.2f}%   {100 * found / total:5.1f}%", flush=True)

    def pixels(self) -> None:
        """Judges the pixels."""
        raw = embed(self.store, lambda x: x.flatten(1))
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(len(raw), 4000, replace=False))
        self.say("pixels, 128 principal components", fit_projection(raw[sample], 128)(raw))
        even = embed(self.store, Standardize())
        for width in (128, 256):
            name = f"pixels as `mlfix sort` takes them (even light, whitened), {width}"
            self.say(name, fit_projection(even[sample], width, whiten=True)(even))

    def network(self, name: str, encoder: Any, words: int) -> None:
        """Judges an encoder's pooled features and its bag of visual words."""
        encoder.eval()
        start = time.monotonic()
        self.say(f"{name}, pooled features", embed(self.store, lambda x: encoder(encoder.normalize(x)), half=True))
        took = time.monotonic() - start
        from mlfix_train.models.embedding.visual_words import bag_of_words, learn_words, place_features

        def grid(x: torch.Tensor) -> torch.Tensor:
            maps = encoder.feature_maps(encoder.normalize(x))
            return maps[-2]

        rng = np.random.default_rng(0)
        per_image = len(place_features(grid(torch.zeros(1, 3, *self.store.shape[1:3])))[0])
        sample = np.sort(rng.choice(len(self.store), 50_000 // per_image, replace=False))
        places = embed(self.store, lambda x: place_features(grid(x)).flatten(1), sample)
        centres = learn_words(places.reshape(len(sample) * per_image, -1), words)
        bags = embed(self.store, bag_of_words(grid, centres), half=True)
        self.say(f"{name}, bag of {words} visual words, {per_image} places", bags)
        print(f"    ({took:.0f} s for {len(self.store):,} images)", flush=True)


def main() -> None:
    """Judges everything."""
    parser = argparse.ArgumentParser(description="Judges embeddings of GTSRB by nearest neighbours.")
    parser.add_argument("root")
    parser.add_argument("--network", action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--words", type=int, default=1024)
    options = parser.parse_args()
    judge: Judge | None = None
    for given in options.network or [None]:
        name, _, place = (given or "").partition("=")
        cfg = config.compose(
            "sort", [config.assign("data.root", options.root), *([config.assign("network", place)] if place else [])]
        )
        size = 32
        if place:
            encoder, settings = embedding.load_encoder(cfg, "cpu")
            size = int(settings.pixels.size)
        if judge is None:
            judge = Judge(options.root, size)
            print(f"{'':<58}   1-NN   planted errors among the 5% most unlike")
            judge.pixels()
        if not place:
            continue
        model = settings.model
        torch.manual_seed(0)
        untrained = Encoder(
            str(model.backbone), model.input_size, bool(model.contrast), backbone_args=config.plain(model.backbone_args)
        )
        judge.network(f"{name}, untrained", untrained, options.words)
        judge.network(f"{name}, trained", encoder, options.words)
        record = pd.read_csv(Path(place) / "metrics.csv")
        print(f"    trained {len(record)} epochs, {record['seconds'].sum() / 60:.0f} min")


if __name__ == "__main__":
    main()
