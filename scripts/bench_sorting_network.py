"""Compares embeddings of GTSRB by their nearest neighbours, without training on labels.

    python scripts/bench_sorting_network.py <GTSRB: folder of class folders> --network NAME=<run> [--network ...]

Prints two figures for the pixels (principal components, plain and as ``mlfix sort`` uses them), for each network
trained and untrained, and for the published bag of visual words of both. First, 1-nearest-neighbour accuracy over all
images, each image's own track left out.
Second, where planted errors end up: labels of 5% of the speed limits are changed, and
the share of them is counted that is among the 5% of their class with the highest outlier scores.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mlfix_train.audit.similarity.callback import label_agreement
from mlfix_train.audit.similarity.seriation import outlier_score
from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions
from mlfix_train.data.pixels.store import PixelSpec, open_store
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.runs import RunDirectory
from mlfix_train.models.embedding.base import TorchEmbedder, compute_features, unit_rows
from mlfix_train.models.embedding.network import NetworkEmbedder, TrainedEncoder, load_encoder
from mlfix_train.models.embedding.pca import fit_projection
from mlfix_train.models.embedding.pixels import PixelEmbedder
from mlfix_train.models.embedding.settings import VisualWordsSpec
from mlfix_train.models.embedding.visual_words import VisualWordsEmbedder
from mlfix_train.models.ssl.encoder import Encoder


class Benchmark:
    """The images, with planted errors, and what is measured of each embedding of them."""

    def __init__(self, root: str, size: int) -> None:
        self.table = read_folder(root, group=r"(.+)_\d+\.jpg")
        self.store = open_store(self.table, PixelSpec(size=size), Path("outputs/.pixels"))
        self.rows = np.arange(len(self.store))
        limits = sorted({str(label) for label in self.table["label"] if str(label).startswith("speed-limit")})
        self.planted = plant_confusions(self.table, 0.05, confusions_among(limits, 2), 0)

    def measure(self, name: str, embeddings: np.ndarray) -> None:
        """Prints the figures of embeddings ``(N, E)``."""
        accuracy = label_agreement(embeddings, self.table)
        wrong = (self.planted["label"] != self.planted[TRUE_LABEL]).to_numpy()
        found = total = 0
        for label in sorted(set(self.planted["label"][wrong])):
            rows = np.flatnonzero((self.planted["label"] == label).to_numpy())
            scores = outlier_score(unit_rows(embeddings[rows]))
            head = np.argsort(-scores, kind="stable")[: max(1, len(rows) // 20)]
            found, total = found + int(wrong[rows[head]].sum()), total + int(wrong[rows].sum())
        print(f"{name:<58} {accuracy:6.2f}%   {100 * found / total:5.1f}%", flush=True)

    def measure_pixels(self) -> None:
        """Measures the pixels."""
        raw = compute_features(self.store, lambda x: x.flatten(1))
        sample = np.sort(np.random.default_rng(0).choice(len(raw), 4000, replace=False))
        self.measure("pixels, 128 principal components", fit_projection(raw[sample], 128)(raw))
        for width in (128, 256):
            self.measure_embedder(f"pixels as `mlfix sort` uses them, {width}", PixelEmbedder(width))

    def measure_embedder(self, name: str, embedder: TorchEmbedder, bfloat16: bool = False) -> None:
        """Fits and measures an embedder."""
        embedder.fit(self.store, self.rows, bfloat16=bfloat16)
        self.measure(name, embedder.project(embedder.features(self.store, bfloat16=bfloat16)))

    def measure_network(self, name: str, trained: TrainedEncoder, words: int) -> None:
        """Measures an encoder's pooled features and its bag of visual words."""
        start = time.monotonic()
        self.measure_embedder(f"{name}, pooled features", NetworkEmbedder(trained, width=None), bfloat16=True)
        seconds = time.monotonic() - start
        bags = VisualWordsEmbedder(trained, VisualWordsSpec(count=words), width=None)
        self.measure_embedder(f"{name}, bag of {words} visual words", bags, bfloat16=True)
        print(f"    ({seconds:.0f} s for {len(self.store):,} images)", flush=True)


def untrained(run: str) -> TrainedEncoder:
    """Returns the encoder of a run with random weights."""
    config = RunDirectory(run).require()["config"]
    torch.manual_seed(0)
    keys = ("backbone", "input_size", "contrast", "backbone_args")
    encoder = Encoder(**{key: config["model"][key] for key in keys})
    return TrainedEncoder(encoder.eval(), "untrained", int(config["pixels"]["size"]), "")


def main() -> None:
    """Measures everything."""
    parser = argparse.ArgumentParser(description="Compares embeddings of GTSRB by their nearest neighbours.")
    parser.add_argument("root")
    parser.add_argument("--network", action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--words", type=int, default=1024)
    options = parser.parse_args()
    networks = [given.partition("=")[::2] for given in options.network]
    trained = {name: load_encoder(run) for name, run in networks}
    benchmark = Benchmark(options.root, next((each.image_size for each in trained.values()), 32))
    print(f"{'':<58}   1-NN   planted errors among the top 5% outliers")
    benchmark.measure_pixels()
    for name, run in networks:
        benchmark.measure_network(f"{name}, untrained", untrained(run), options.words)
        benchmark.measure_network(f"{name}, trained", trained[name], options.words)
        record = pd.read_csv(Path(run) / "metrics.csv")
        print(f"    trained {len(record)} epochs, {record['seconds'].sum() / 60:.0f} min")


if __name__ == "__main__":
    main()
