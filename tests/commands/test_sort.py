"""``mlfix sort``: what it writes, reuses and continues, embedders, near-duplicates, mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from PIL import Image
from shapes import FAST, SORTING, draw_shapes

from mlfix_train import run_command
from mlfix_train.audit.similarity import pipeline
from mlfix_train.audit.similarity.near_duplicates import perturbed
from mlfix_train.models.embedding.base import TorchEmbedder

SORT = ("pixels.size=16", "device=cpu", "pixels.cache=.pixels")


@pytest.fixture
def place(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shapes.parent)
    return shapes.parent


def order(out: str = "sort") -> pd.DataFrame:
    return pd.read_parquet(Path(out) / "order.parquet")


def about(out: str = "sort") -> dict:
    return json.loads((Path(out) / "sort.json").read_text())


def test_it_writes_an_order_embeddings_and_panels(place: Path, mlfix) -> None:
    answer = mlfix("sort", "data.root=shapes", *SORT, "slices.round=disc|square")
    assert answer.code == 0 and "sorted     72 images of 3 labels by pixels" in answer.out
    found = order()
    assert sorted(found["position"]) == list(range(72)) and list(found["sample_id"]) == sorted(found["sample_id"])
    for _, rows in found.groupby("label"):
        assert sorted(rows["label_position"]) == list(range(24))
    assert np.load("sort/embeddings.npy").shape[0] == 72
    names = {path.name for path in Path("sort/panels").iterdir()}
    assert {"all.png", "outliers.png", "slice-round.png"} < names and sum("label-" in name for name in names) == 3
    told = about()
    assert told["path"]["of_random_order"] < 1 and told["images"] == 72 and len(told["key"]) == 64
    columns = "duplicate_group sample_id label held_out kind nearest distance labels_differ crosses_split"
    assert list(pd.read_csv("sort/duplicates.csv")) == columns.split()


def test_the_same_again_embeds_nothing_and_gives_the_same(place: Path, mlfix, monkeypatch) -> None:
    mlfix("sort", "data.root=shapes", *SORT)
    before = order()
    monkeypatch.setattr(pipeline, "_embed_in_blocks", lambda *_: pytest.fail("it embedded again"))
    assert mlfix("sort", "data.root=shapes", *SORT, "n_panels=1").code == 0
    assert order().equals(before) and len(list(Path("sort/panels").glob("label-*"))) == 1


def test_changed_images_are_embedded_anew(place: Path, mlfix) -> None:
    mlfix("sort", "data.root=shapes", *SORT)
    before = np.load("sort/embeddings.npy")
    Image.new("RGB", (16, 16), "red").save("shapes/disc/000.png")
    mlfix("sort", "data.root=shapes", *SORT)
    assert not np.allclose(np.load("sort/embeddings.npy")[0], before[0])


def interrupt_second_block(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupts the embedding of the second block of images; returns the sizes of all blocks embedded."""
    real, sizes = TorchEmbedder.features, []

    def features(self: TorchEmbedder, pixels: object, rows: np.ndarray | None = None, **options: Any) -> np.ndarray:
        if options.get("progress") is not None:
            sizes.append(len(rows))
            if len(sizes) == 2:
                raise KeyboardInterrupt
        return real(self, pixels, rows, **options)

    monkeypatch.setattr(TorchEmbedder, "features", features)
    monkeypatch.setattr("mlfix_train.audit.similarity.pipeline.SECONDS_PER_BLOCK", 0)
    return sizes


def test_an_interrupted_embedding_continues(place: Path, mlfix, monkeypatch) -> None:
    sizes = interrupt_second_block(monkeypatch)
    keys = ("data.root=shapes", *SORT, "batch_size=1")  # 32 images a block
    assert mlfix("sort", *keys).code == 130
    assert mlfix("sort", *keys).code == 0
    assert sizes == [32, 32, 32, 8] and not list(Path("sort").glob(".unfinished*"))
    assert mlfix("sort", *keys[:-1], "out=whole").code == 0
    assert np.allclose(np.load("sort/embeddings.npy"), np.load("whole/embeddings.npy"), atol=1e-5)


# --- embedders ---


def test_a_classifier_and_its_words_and_its_lpips(place: Path, mlfix) -> None:
    mlfix("train", "data.root=shapes", *FAST)
    run = "network=outputs/default/original/seed=0"
    for by, used in (
        ("auto", "the classifier"),
        ("visual_words", "64 visual words of the classifier"),
        ("lpips", "not LPIPS"),
    ):
        answer = mlfix("sort", "data.root=shapes", "device=cpu", run, f"by={by}", "visual_words.count=64", f"out={by}")
        assert answer.code == 0, answer.err
        assert used in about(by)["used"] and used in answer.out
    assert about("auto")["images"] == 72 and np.load("visual_words/embeddings.npy").shape == (72, 64)
    assert "pixels.size" not in answer.err  # taken over from the run


def test_a_sorting_network(place: Path, mlfix) -> None:
    mlfix("train", "data.root=shapes", *SORTING)
    answer = mlfix("sort", "data.root=shapes", "network=outputs/sorting", "device=cpu")
    assert answer.code == 0 and "by the sorting network outputs/sorting (mlfix_small)" in answer.out
    again = mlfix("sort", "data.root=shapes", "network=outputs/sorting/original/seed=0/checkpoints/model.ckpt", "out=b")
    assert again.code == 0 and np.allclose(np.load("b/embeddings.npy"), np.load("sort/embeddings.npy"), atol=1e-3)


@pytest.mark.slow
def test_a_pretrained_network_takes_small_images_as_they_are(place: Path, mlfix) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18", num_classes=0).state_dict(), "w.pt")
    keys = ("embedder.name=resnet18", "embedder.weights=w.pt", "embedder.size=64", "device=cpu", "n_panels=0")
    answer = mlfix("sort", "data.root=shapes", *keys)
    assert answer.code == 0 and "72 images of 3 labels by resnet18, weights w.pt, 64 px" in answer.out, answer.err
    side = Image.open(next(Path("shapes").rglob("*.png"))).width
    (store,) = Path("sort/.pixels").glob("*/pixels.npy")
    assert side < 64 and np.load(store, mmap_mode="r").shape == (72, side, side, 3)
    assert f"stored at {side} px" in answer.err and about()["used"].startswith("resnet18")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_lpips_by_a_file_with_exact_distances(place: Path, mlfix) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), "alex.pth")
    keys = ("data.root=shapes", *SORT, "by=lpips", "lpips.weights=alex.pth", "lpips.size=32", "width=8")
    answer = mlfix("sort", *keys)
    assert answer.code == 0 and "LPIPS, trunk alex, weights alex.pth" in answer.out and "projected" in answer.out
    told = about()["projection"]
    assert told["to"] == 8 and 0 < told["squared_distance_error_mean"] < 1
    assert not list(Path("sort").glob(".unfinished*"))
    import lpips

    model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load("alex.pth")
    for name, value in model.net.state_dict().items():
        value.copy_(state[name.replace(name.split(".")[0], "features")])
    # An altered copy's distance, by the package: the threshold is the 25th percentile of them.
    from mlfix_train.data.pixels.store import PixelSpec, open_store
    from mlfix_train.data.readers.folder import read_folder

    store = open_store(read_folder("shapes"), PixelSpec(size=16), ".pixels")
    drawn = np.sort(np.random.default_rng(0).choice(np.arange(72), 72, replace=False))
    both = [torch.from_numpy(x).permute(0, 3, 1, 2) / 255 for x in (store[drawn], perturbed(store[drawn]))]
    both = [torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear", antialias=True) for x in both]
    with torch.inference_mode():
        gaps = model(*both, normalize=True).flatten().clamp_min(0).sqrt()
    assert about()["threshold"] == pytest.approx(float(np.quantile(gaps.numpy(), 0.25)), rel=1e-2)


def test_embeddings_of_ones_own_and_an_earlier_start(place: Path, mlfix) -> None:
    line = np.random.default_rng(0).permutation(72).astype(np.float32)
    np.save("mine.npy", line[:, None])
    answer = mlfix("sort", "data.root=shapes", *SORT, "embeddings=mine.npy")
    assert answer.code == 0 and "by embeddings of mine.npy" in answer.out
    assert np.abs(np.diff(line[np.argsort(order()["position"])])).max() == 1
    (place / "shapes/disc/000.png").rename(place / "shapes/disc/zzz.png")
    again = mlfix("sort", "data.root=shapes", *SORT, "initial_order=sort", "out=new")
    assert again.code == 0 and sorted(order("new")["position"]) == list(range(72))


# --- near-duplicates ---


def test_near_duplicates_are_told_with_their_labels_and_sides(place: Path, mlfix) -> None:
    shutil.copy("shapes/disc/001.png", "shapes/square/copy.png")
    answer = mlfix("sort", "data.root=shapes", *SORT)
    found = pd.read_csv("sort/duplicates.csv")
    first = found[found["labels_differ"]]
    assert set(first["sample_id"]) == {"disc/001.png", "square/copy.png"} and (first["kind"] == "identical").all()
    assert "1 have different labels" in answer.out and Path("sort/panels/duplicates.png").exists()
    groups = order().set_index("sample_id")["duplicate_group"]
    assert groups["disc/001.png"] == groups["square/copy.png"] >= 0
    only = mlfix("sort", "data.root=shapes", *SORT, "duplicates.threshold=0", "out=exact")
    assert only.code == 0 and len(pd.read_csv("exact/duplicates.csv")) == 2


# --- few images, no labels, mistakes ---


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_few_images_are_sorted_too(place: Path, mlfix, count: int) -> None:
    few = place / "few"
    few.mkdir()
    for number in range(count):
        shutil.copy(f"shapes/disc/{number:03d}.png", few / f"{number}.png")
    answer = mlfix("sort", "data.root=few", *SORT)
    assert answer.code == 0 and f"sorted     {count} images by pixels" in answer.out
    assert sorted(order()["position"]) == list(range(count)) and order()["label"].isna().all()


def test_equal_images_are_sorted_too(place: Path, mlfix) -> None:
    for label in ("a", "b"):
        (place / "same" / label).mkdir(parents=True)
        for number in range(15):
            Image.new("RGB", (16, 16), "gray").save(place / f"same/{label}/{number}.png")
    answer = mlfix("sort", "data.root=same", *SORT)
    assert answer.code == 0 and "1 groups of 30 images (30 identical)" in answer.out


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["by=network"], "by=network needs network"),
        (["by=visual_words"], "by=visual_words needs network"),
        (["by=magic"], "by=magic"),
        (["by=pixel"], "did you mean 'pixels'"),
        (["network=nowhere"], "network=nowhere matches nothing"),
        (["embeddings=nowhere.npy"], "embeddings=nowhere.npy does not exist"),
        (["embeddings=short.npy"], "shape (5, 3), but there are 72 images"),
        (["embeddings=nan.npy"], "the first is row 7"),
        (["initial_order=nowhere"], "initial_order=nowhere contains no order.parquet"),
        (["by=lpips", "lpips.weights=nowhere.pth", "lpips.size=64"], "lpips.weights=nowhere.pth does not exist"),
        (["by=lpips", "lpips.trunk=alexnet"], "alex"),
        (["by=lpips"], "images of 16 px are too small for lpips.trunk=alex"),
        (["embedder.nmae=resnet18"], "did you mean 'embedder.name'"),
        (["embedder.name=resnet5"], "did you mean 'resnet50'"),
        (["embedder.weights=nowhere.pt"], "nowhere.pt does not exist"),
        (["embedder.size=8"], "embedder.size=8 is out of range"),
        (["by=pixels", "embedder.size=64"], "belongs to by=pretrained"),
        (["embeddings=short.npy", "embedder.name=resnet18"], "measured by embeddings"),
        (["by=pretraind"], "did you mean 'pretrained'"),
        (["width=0"], "width"),
        (["search_effort=-1"], "search_effort=-1"),
        (["n_panels=many"], "n_panels=many"),
        (["duplicates.threshold=-1"], "duplicates.threshold"),
        (["slices.a=(", "n_panels=0"], "slices.a=( is not a valid regular expression"),
        (["device=tpu"], "device"),
        (["out=shapes/sort"], "its pictures would become samples"),
        (["out=nan.npy"], "out=nan.npy is a file"),
        (["visual_words.stage=x"], "visual_words.stage=x is not an integer"),
        (["initial_order=3"], "initial_order=3"),
        (["lpips=3"], "lpips"),
        (["pixels.size=abc"], "pixels.size"),
        (["embeddings=huge.npy"], "values as large as 1e+30"),
        (["serch_effort=1"], "did you mean search_effort"),
        (["data.root=empty"], "empty"),
    ],
)
def test_mistakes_are_named(place: Path, mlfix, keys: list[str], words: str) -> None:
    (place / "empty").mkdir()
    np.save("short.npy", np.zeros((5, 3)))
    bad = np.zeros((72, 3))
    bad[7, 1] = np.nan
    np.save("nan.npy", bad)
    np.save("huge.npy", np.full((72, 3), 1e30))
    root = [] if any(key.startswith("data.root") for key in keys) else ["data.root=shapes"]
    answer = mlfix("sort", *root, *SORT, *keys)
    assert answer.code in (1, 2) and words in answer.err, answer.err


def test_embeddings_of_another_order_are_refused(place: Path, mlfix) -> None:
    mlfix("sort", "data.root=shapes", *SORT)
    rows = order().iloc[::-1]
    rows[["sample_id"]].assign(path=[f"shapes/{name}" for name in rows["sample_id"]], label="x").to_csv("back.csv")
    answer = mlfix("sort", "data=table", "data.file=back.csv", *SORT, "embeddings=sort/embeddings.npy", "out=b")
    assert answer.code == 1 and "lists these images in a different order" in answer.err


def test_no_room_for_exact_features_names_size_and_key(place: Path, mlfix, monkeypatch) -> None:
    mlfix("train", "data.root=shapes", *FAST)
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 100_000))
    answer = mlfix("sort", "data.root=shapes", "network=outputs/default", "by=lpips")
    assert answer.code == 1 and "GB free" in answer.err and "lpips.rerank=0" in answer.err


@pytest.mark.slow
def test_interrupted_exact_features_continue(place: Path, mlfix, monkeypatch) -> None:
    mlfix("train", "data.root=shapes", *FAST)
    sizes = interrupt_second_block(monkeypatch)
    keys = ("data.root=shapes", "network=outputs/default", "by=lpips", "batch_size=1", "width=8", "device=cpu")
    assert mlfix("sort", *keys).code == 130 and list(Path("sort").glob(".unfinished-*"))
    assert mlfix("sort", *keys).code == 0
    assert sizes == [32, 32, 32, 8] and not list(Path("sort").glob(".unfinished-*"))
    assert mlfix("sort", *keys, "out=whole").code == 0
    assert order().drop(columns="duplicate_group").equals(order("whole").drop(columns="duplicate_group"))


def test_embeddings_too_large_for_memory_name_size_and_key(place: Path, mlfix, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "available_memory", lambda: 10_000)
    answer = mlfix("sort", "data.root=shapes", *SORT, "width=null")
    assert answer.code == 1 and "GB of memory" in answer.err and "width=128" in answer.err


@pytest.mark.slow
def test_another_training_of_the_network_embeds_anew(place: Path, mlfix) -> None:
    keys = ("sort", "data.root=shapes", "network=outputs/default", "device=cpu")
    mlfix("train", "data.root=shapes", *FAST)
    assert mlfix(*keys).code == 0
    before = about()["key"]
    mlfix("train", "data.root=shapes", *FAST, "recipe.lr=1e-3", "overwrite=true")
    assert mlfix(*keys).code == 0 and about()["key"] != before


def test_labelled_images_too_few_to_split_are_sorted(place: Path, mlfix) -> None:
    for label in ("a", "b"):
        (place / "two" / label).mkdir(parents=True)
        shutil.copy(f"shapes/disc/00{label == 'b':d}.png", place / f"two/{label}/x.png")
    answer = mlfix("sort", "data.root=two", *SORT)
    assert answer.code == 0 and "sorted     2 images of 2 labels" in answer.out


def test_an_order_of_other_samples_is_an_error_of_the_audit(place: Path, mlfix) -> None:
    mlfix("train", "data.root=shapes", *FAST)
    draw_shapes(place / "others", 4, labels=("disc", "ring"))
    mlfix("sort", "data.root=others/ring", *SORT, "out=o")
    answer = mlfix("audit", "runs=outputs/default", "order=o")
    assert answer.code == 1 and "was made for other samples" in answer.err


def test_a_split_that_is_not_known_is_not_said_to_be_clean(place: Path, mlfix) -> None:
    rows = [f"shapes/disc/{i:03d}.png" for i in range(20)]
    shutil.copy(rows[0], "shapes/disc/twin.png")
    rows.append("shapes/disc/twin.png")
    pd.DataFrame({"path": rows, "label": ["a", "b"] * 10 + [None]}).to_csv("t.csv", index=False)
    answer = mlfix("sort", "data=table", "data.file=t.csv", *SORT)
    assert answer.code == 0 and "both sides of the split is not known" in answer.out, answer.out + answer.err


def test_an_unfinished_network_is_not_used(place: Path, mlfix) -> None:
    mlfix("train", "data.root=shapes", *FAST)
    path = Path("outputs/default/original/seed=0/run.json")
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "interrupted"'))
    assert "is interrupted" in mlfix("sort", "data.root=shapes", "network=outputs/default").err


def test_the_notebook_function_and_the_audit_in_visual_order(place: Path, mlfix) -> None:
    found = run_command("sort", "data.root=shapes", *SORT)
    assert len(found) == 72
    mlfix("train", "data.root=shapes", *FAST)
    answer = mlfix("audit", "runs=outputs/default", "order=sort")
    assert answer.code == 0
    texts = [Image.open(path).text["Description"] for path in Path("audit/panels").glob("0*.png")]
    assert texts and all("visual order" in text or "worst first" in text for text in texts)  # faults: worst first
    assert sum("visual order" in text for text in texts) >= len(texts) - 2
    assert "order=nowhere does not exist" in mlfix("audit", "runs=outputs/default", "order=nowhere").err


def test_pictures_look_the_same_beside_each_other(tmp_path: Path, mlfix, monkeypatch) -> None:
    """Two kinds of pictures, mixed: in the order each kind is in one piece."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "mixed").mkdir()
    for number in range(60):
        stripes = np.zeros((16, 16, 3), np.uint8)
        stripes[:: 2 if number % 2 else 4] = rng.integers(150, 250)
        Image.fromarray(stripes + rng.integers(0, 5, (16, 16, 3), dtype=np.uint8)).save(f"mixed/{number:02d}.png")
    mlfix("sort", "data.root=mixed", *SORT)
    kinds = np.argsort(order()["position"]).to_numpy() % 2
    assert (np.diff(kinds) != 0).sum() == 1
