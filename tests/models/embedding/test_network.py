"""The encoder of a finished run as an embedder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mlfix_train.data.loading.augment import normalize
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.models.classifier import Classifier
from mlfix_train.models.embedding.network import NetworkEmbedder, load_encoder


def describe(path: Path, **content: object) -> None:
    (path / "run.json").write_text(json.dumps({"identity": {}, "data": {}, "labels": ["a", "b"], **content}))


def write_run(path: Path, target: str = "mlfix_train.models.classifier.Classifier", **changes: object) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(["a", "b"], "mlfix_small", head="concat_pool").eval()
    settings = {"_target_": target, "backbone": "mlfix_small", "head": "concat_pool", **changes}
    (path / "checkpoints").mkdir(parents=True)
    config = {"model": settings, "pixels": {"size": 24}}
    describe(path, status="finished", config=config)
    torch.save({"state_dict": model.state_dict()}, path / "checkpoints" / "model.ckpt")
    return model


def test_a_classifier_embeds_by_its_backbone(tmp_path: Path) -> None:
    model = write_run(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    embedder = NetworkEmbedder(load_encoder(tmp_path / "run"), width=None)
    x = normalize(torch.from_numpy(images).permute(0, 3, 1, 2), *map(torch.tensor, (model.mean, model.std)))
    with torch.no_grad():
        wanted = model.network.backbone.forward_features(x).mean((2, 3)).numpy()
    assert embedder.features(images) == pytest.approx(wanted, abs=1e-5)
    assert embedder.image_size == 24 and "classifier" in embedder.name and "mlfix_small" in embedder.name
    again = load_encoder(tmp_path / "run" / "checkpoints" / "model.ckpt")
    assert again.fingerprint == load_encoder(tmp_path / "run").fingerprint


def test_a_run_that_cannot_embed_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "mine", "my.Model", backbone=None)
    with pytest.raises(RunError, match=r"trained my\.Model, which has no model\.backbone"):
        load_encoder(tmp_path / "mine")
    write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="contains 2 runs"):
        load_encoder(tmp_path)
    (tmp_path / "run/checkpoints/model.ckpt").unlink()
    with pytest.raises(RunError, match="kept no weights"):
        load_encoder(tmp_path / "run")
    describe(tmp_path / "run", status="running", config={"model": {}})
    with pytest.raises(RunError, match="is running"):
        load_encoder(tmp_path / "run")
