"""Plants wrong labels, audits, and measures how well each score finds them, cleanlab's among them.

    python scripts/bench_audit.py gtsrb bench --noise confusion --fraction 0.03 --seeds 0 1 2 [--order sort]
    python scripts/bench_audit.py signs bench-signs --noise uniform confusion similar tracks --seeds 0 1 2

The first argument is a folder of class folders whose files end in _<frame>.<suffix> (GTSRB), or `signs`: rendered ones.
With --truth, a CSV of sample_id and true_label (people's errors, such as cifar10-people), nothing is planted: the
labels of the folders are audited without runs (by the pretrained network) and, with --epochs of 1 or more, by three
folds of the small network, beside the single scores, cleanlab's scores, and its Datalab, SelfClean's and SimiFeat's
scores on the same embedding:

    python scripts/bench_audit.py cifar10-people/photos bench-people --truth cifar10-people/truth.csv --epochs 24

Noise: `uniform` (any other label, all classes), `confusion` (classes that match --labels are mistaken for their
likeliest), `tracks` (the same, whole tracks at a time), `similar` (images are mistaken for the label of their nearest
neighbour of another label, the likelier the nearer it is). Trainings (5 grouped folds, small backbone) that are there
are not repeated. `--order` names a directory of `mlfix sort`; without it neighbours are found by the pixels.
cleanlab is a tool of this script only: pip install cleanlab.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.runs import load_runs, mean_probabilities
from mlfix_train.audit.scores import registry
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions, plant_similar, plant_uniform
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.samples import label_list, write_table

SCORES = {"suspicion": ("evidence", 1)} | {
    score.name: (score.name, 1 if score.higher_is_worse else -1)
    for score in registry.SCORES
    if score.name != "disagreement"
}
"""Column of the ranking and direction of each score."""


def main() -> None:
    """Runs all plantings and prints a table of each, and of the mean over seeds."""
    parser = argparse.ArgumentParser(description="How well an audit finds planted errors.")
    parser.add_argument("data", help="folder of class folders, or `signs`")
    parser.add_argument("work", type=Path, help="folder for tables, runs and audits; continued if it exists")
    parser.add_argument("--noise", nargs="+", default=["confusion"])
    parser.add_argument("--fraction", nargs="+", type=float, default=[0.03])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--labels", default="^speed-limit", help="regular expression: classes of confusion and tracks")
    parser.add_argument("--order", help="directory of `mlfix sort`")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--truth", type=Path, help="CSV of sample_id and true_label: audit people's errors")
    parser.add_argument("--fastdup", help="a Python that has fastdup, which is then measured beside --truth, too")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.truth:
        _people(options)
        return
    clean = _clean(options)
    for noise in options.noise:
        for fraction in options.fraction:
            results = [_one(options, clean, noise, fraction, seed) for seed in options.seeds]
            _print(f"{noise}, {fraction:.0%}", results)


def _train_folds(options: argparse.Namespace, runs: Path, *keys: str) -> None:
    """Trains the small network out of fold, keeping all probabilities."""
    _mlfix(
        "train",
        "-m",
        *keys,
        "model=small",
        f"recipe.epochs={options.epochs}",
        "pixels.size=32",
        "sweep=out_of_fold",
        "audit.probabilities=true",
        "audit.n_panels=0",
        "checkpoint.keep=none",
        "logger=none",
        f"name={runs.name}",
        f"outputs={runs.parent}",
        f"jobs={options.jobs}",
    )


def _people(options: argparse.Namespace) -> None:
    """Audits labels that people got wrong, without and with runs, and prints a table of each."""
    truth = pd.read_csv(options.truth, keep_default_na=False).set_index("sample_id")["true_label"]
    audits = {"without runs": ["audit", f"data.root={options.data}"]}
    if options.epochs:
        runs = options.work / "outputs" / "people"
        _train_folds(options, runs, f"data.root={options.data}", "split.folds=3")
        audits["runs alone"] = ["audit", f"runs={runs}", "by=none"]
        audits["runs and images"] = ["audit", f"runs={runs}"]
    for title, arguments in audits.items():
        out = options.work / title.replace(" ", "-")
        start = time.monotonic()
        _mlfix(*arguments, f"out={out}", "logger=none", "n_panels=4")
        seconds = time.monotonic() - start
        ranking = pd.read_csv(out / "ranking.csv", keep_default_na=False, na_values=[""]).set_index("sample_id")
        wrong = (ranking["given_label"] != truth.loc[ranking.index]).to_numpy()
        found = {
            key: judge(sign * ranking[column].to_numpy(float), wrong)
            for key, (column, sign) in SCORES.items()
            if ranking[column].notna().any()
        }
        if title == "runs alone":
            for key, scores in _cleanlab(runs, ranking.index).items():
                found[f"cleanlab {key}"] = judge(-scores, wrong)
        if title == "without runs":
            for key, scores in _on_embedding(out, ranking.index).items():
                found[f"{key}, same embedding"] = judge(-scores, wrong)
            if options.fastdup:
                scores = _fastdup(options.fastdup, Path(options.data), options.work / "fastdup", ranking)
                found["fastdup, own embedding"] = judge(-scores, wrong)
        right = (ranking["suggested_label"] == truth.loc[ranking.index]).to_numpy()
        guessed = (ranking["predicted_label"] == truth.loc[ranking.index]).to_numpy()
        print(f"\n{title}: {wrong.sum()} of {len(wrong):,} labels are wrong; the command took {seconds:.0f} s\n")
        head = list(found["suspicion"])
        print(f"| score | {' | '.join(head)} |\n| --- |{' --- |' * len(head)}")
        for key, figures in found.items():
            print(f"| {key} | " + " | ".join(f"{figures[name]:.3f}" for name in head) + " |")
        print(f"\n{_compare_with_best(ranking, found, wrong)}")
        issue = ranking["is_label_issue"].astype(str).eq("True").to_numpy()
        print(
            f"\n{issue.sum()} label issues, {100 * wrong[issue].mean():.0f}% of them wrong; of the wrong labels "
            f"{100 * right[wrong].mean():.1f}% have the right suggestion, {100 * guessed[wrong].mean():.1f}% by argmax"
        )


def _on_embedding(out: Path, ids: pd.Index) -> dict[str, np.ndarray]:
    """Returns others' scores of labels (lower is worse) on the features of an audit."""
    order = pd.read_parquet(out / "order.parquet", columns=["sample_id", "label"])
    features = np.load(out / "features.npy").astype(np.float32)
    codes = pd.factorize(order["label"], sort=True)[0]
    found = {"SelfClean": self_clean(features, codes)}
    found |= {f"SimiFeat, {k} neighbours": simi_feat(features, codes, k) for k in (10, 50)}
    try:
        import datasets  # noqa: F401 - Datalab needs it
        from cleanlab import Datalab
    except ImportError:
        print('cleanlab\'s Datalab is left out: pip install "cleanlab[datalab]"')
    else:
        lab = Datalab({"label": list(codes)}, label_name="label", verbosity=0)
        lab.find_issues(features=features, issue_types={"label": {}})
        found["cleanlab Datalab"] = lab.get_issues("label")["label_score"].to_numpy()
    rows = pd.Index(order["sample_id"]).get_indexer(ids)
    return {key: scores[rows] for key, scores in found.items()}


FASTDUP = """
import sys, fastdup, pandas as pd
fd = fastdup.create(work_dir=sys.argv[2], input_dir=sys.argv[1])
fd.run(annotations=pd.read_csv(sys.argv[3]), nearest_neighbors_k=10, threshold=0.0, overwrite=True, print_summary=False)
fd.similarity()[["filename_from", "label_from", "label_to"]].to_csv(sys.argv[4], index=False)
"""


def _fastdup(python: str, root: Path, work: Path, ranking: pd.DataFrame) -> np.ndarray:
    """Returns fastdup's label score: the share of the 10 nearest images, by its own network, that have the label."""
    work.mkdir(parents=True, exist_ok=True)
    files = [str((root / name).resolve()) for name in ranking.index]
    pd.DataFrame({"filename": files, "label": ranking["given_label"]}).to_csv(work / "images.csv", index=False)
    arguments = [str(root.resolve()), str(work / "work"), str(work / "images.csv"), str(work / "similarity.csv")]
    subprocess.run([python, "-c", FASTDUP, *arguments], check=True, stdout=subprocess.DEVNULL)
    near = pd.read_csv(work / "similarity.csv", dtype=str, keep_default_na=False)
    score = (near["label_from"] == near["label_to"]).groupby(near["filename_from"]).mean()
    return score.reindex(files).fillna(1.0).to_numpy()


def _cosine_blocks(features: np.ndarray, size: int = 1000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows and their cosine similarities to all samples, -1 to themselves."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    for start in range(0, len(unit), size):
        rows = np.arange(start, min(start + size, len(unit)))
        similarity = unit[rows] @ unit.T
        similarity[np.arange(len(rows)), rows] = -1
        yield rows, similarity


def self_clean(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The score of SelfClean (Groeger et al. 2024): how much nearer the nearest sample of the same label is, 0 to 1.

    With cosine distances d to the nearest sample of the same label and e to that of another one: e^2 / (d^2 + e^2).
    """
    scores = np.empty(len(labels))
    for rows, similarity in _cosine_blocks(features):
        same = labels[rows, None] == labels
        own, other = (1 - np.where(mask, similarity, -1).max(1) for mask in (same, ~same))
        scores[rows] = other**2 / (own**2 + other**2).clip(1e-12)
    return scores


def simi_feat(features: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """The score that SimiFeat ranks by (Zhu et al. 2022): cosine of the label to the labels of k neighbours, 0 to 1."""
    scores = np.empty(len(labels))
    for rows, similarity in _cosine_blocks(features):
        nearest = labels[np.argpartition(-similarity, k, axis=1)[:, :k]]
        counts = np.stack([np.bincount(row, minlength=labels.max() + 1) for row in nearest])
        scores[rows] = counts[np.arange(len(rows)), labels[rows]] / np.linalg.norm(counts, axis=1)
    return scores


def _clean(options: argparse.Namespace) -> pd.DataFrame:
    if options.data != "signs":
        return read_folder(options.data, r"(.+)_\d+\.\w+$")
    from mlfix_train.commands.demo import CLASSES
    from mlfix_train.data.synthetic.signs import read_signs

    return read_signs(options.work / "signs", 110, 0, 32, CLASSES, 0.6)


def _plant(options: argparse.Namespace, clean: pd.DataFrame, noise: str, fraction: float, seed: int) -> pd.DataFrame:
    import re

    if noise == "uniform":
        return plant_uniform(clean, fraction, seed)
    names = [name for name in label_list(clean) if re.search(options.labels, name)]
    if noise in ("confusion", "tracks"):
        return plant_confusions(clean, fraction, confusions_among(names), seed, whole_groups=noise == "tracks")
    confused_with, similarity = _confusable_labels(options, clean)
    return plant_similar(
        clean, min(1.0, fraction * len(clean) / (similarity > 0).sum()), confused_with, similarity, seed
    )


def _confusable_labels(options: argparse.Namespace, clean: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Returns each image's nearest other label, and how much nearer it is than its own label in other tracks."""
    where = Path(options.order or _sorted_by_pixels(options, clean))
    points = np.load(where / "embeddings.npy")
    found = nearest_neighbours(points, 48)
    label, group = clean["label"].to_numpy(dtype=object), pd.factorize(clean["group"])[0]
    rows = np.arange(len(clean))
    foreign = label[found.index] != label[:, None]
    own = ~foreign & (group[found.index] != group[:, None])
    has = foreign.any(1)
    rival = np.where(has, label[found.index[rows, foreign.argmax(1)]], "")
    far = np.where(has, found.distance[rows, foreign.argmax(1)], np.inf)
    near = np.where(own.any(1), found.distance[rows, own.argmax(1)], found.distance[:, -1])
    return rival, np.where(has, np.minimum((near / np.maximum(far, 1e-6)) ** 2, 25), 0)


def _sorted_by_pixels(options: argparse.Namespace, clean: pd.DataFrame) -> Path:
    out = options.work / "sort"
    if not (out / "order.parquet").exists():
        write_table(clean, options.work / "clean.csv")
        _mlfix(
            "sort",
            "data=table",
            f"data.file={options.work / 'clean.csv'}",
            f"out={out}",
            "pixels.size=32",
            "n_panels=0",
        )
    return out


def _mlfix(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "mlfix_train.cli.main", *arguments], check=True, stdout=subprocess.DEVNULL)


def _one(options: argparse.Namespace, clean: pd.DataFrame, noise: str, fraction: float, seed: int) -> dict:
    """Plants, trains and audits once; returns the figures of each score."""
    name = f"{noise}-{fraction:g}-{seed}"
    work = options.work
    if not (work / f"{name}.csv").exists():
        write_table(_plant(options, clean, noise, fraction, seed), work / f"{name}.csv")
    runs = work / "outputs" / f"{'signs' if options.data == 'signs' else 'gtsrb'}-{name}"
    _train_folds(options, runs, "data=table", f"data.file={work / f'{name}.csv'}", "loader.batch_size=64")
    out = work / f"audit-{name}"
    _mlfix(
        "audit",
        f"runs={runs}",
        f"out={out}",
        "logger=none",
        "n_panels=4",
        *([f"order={options.order}"] * bool(options.order)),
    )
    ranking = pd.read_csv(out / "ranking.csv", keep_default_na=False, na_values=[""]).set_index("sample_id")
    table = pd.read_csv(work / f"{name}.csv", keep_default_na=False).set_index("sample_id").loc[ranking.index]
    wrong = (table["label"] != table[TRUE_LABEL]).to_numpy()
    found = {key: judge(sign * ranking[column].to_numpy(float), wrong) for key, (column, sign) in SCORES.items()}
    for key, scores in _cleanlab(runs, ranking.index).items():
        found[f"cleanlab {key}"] = judge(-scores, wrong)
    groups = pd.factorize(table["group"])[0]
    about = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    issue = ranking["is_label_issue"].astype(str) == "True"
    suggested = ranking["suggested_label"].to_numpy() == table[TRUE_LABEL].to_numpy()
    estimates = about["estimates"] or {
        "wrong": float("nan"),
        "interval": [float("nan")] * 2,
        "review_yield": {"stop_rank": 0},
    }
    stop_rank = estimates["review_yield"]["stop_rank"]
    summary = {
        "against best": _compare_with_best(ranking, found, wrong, groups),
        "planted": int(wrong.sum()),
        "estimate": estimates["wrong"],
        "interval": estimates["interval"],
        "suggested": 100 * suggested[wrong & issue.to_numpy()].mean(),
        "issues": int(issue.sum()),
        "precision": 100 * wrong[issue.to_numpy()].mean(),
        "stop_rank": stop_rank,
        "found before stop_rank": int(wrong[:stop_rank].sum()),
    }
    return {"scores": found, "summary": summary}


def judge(score: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Returns figures of a score (higher is worse) against the truth; ties broken evenly."""
    from scipy.stats import rankdata

    order = np.lexsort((np.random.default_rng(0).permutation(len(score)), -np.nan_to_num(score, nan=-np.inf)))
    hits, count = wrong[order], int(wrong.sum())
    ranks = rankdata(np.nan_to_num(score, nan=-np.inf))
    auroc = (ranks[wrong].sum() - count * (count + 1) / 2) / (count * (len(wrong) - count))
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return {
        "AP": float(precision[hits].mean()),
        "AUROC": float(auroc),
        "recall at N": 100 * float(hits[:count].mean()),
        "recall at 2N": 100 * float(hits[: 2 * count].sum() / count),
        "found per 100 reviewed, first 2N": 100 * float(hits[: 2 * count].mean()),
    }


def _compare_with_best(
    ranking: pd.DataFrame, found: dict[str, dict[str, float]], wrong: np.ndarray, groups: np.ndarray | None = None
) -> str:
    """Says how much better suspicion is than the best of the single scores, with a paired bootstrap over groups."""
    best = max((key for key in found if key in SCORES and key != "suspicion"), key=lambda key: found[key]["AP"])
    column, sign = SCORES[best]
    difference, low, high = paired_bootstrap(
        ranking["evidence"].to_numpy(float), sign * ranking[column].to_numpy(float), wrong, groups
    )
    return (
        f"average precision of suspicion minus that of {best}, the best single score: {difference:+.4f} "
        f"(95% interval of a paired bootstrap {low:+.4f} to {high:+.4f})"
    )


def paired_bootstrap(
    score: np.ndarray, other: np.ndarray, wrong: np.ndarray, groups: np.ndarray | None = None, draws: int = 1000
) -> tuple[float, float, float]:
    """Returns the difference of the average precisions of two scores (higher is worse), and its 95% interval."""
    unit = np.arange(len(wrong)) if groups is None else groups
    rng, n_units = np.random.default_rng(0), int(unit.max()) + 1
    orders = [np.lexsort((rng.permutation(len(s)), -np.nan_to_num(s, nan=-np.inf))) for s in (score, other)]

    def precision(order: np.ndarray, weight: np.ndarray) -> float:
        weight, hits = weight[order], (weight * wrong)[order]
        return float((np.cumsum(hits) / np.maximum(np.cumsum(weight), 1) * hits).sum() / max(hits.sum(), 1))

    def difference(weight: np.ndarray) -> float:
        return precision(orders[0], weight) - precision(orders[1], weight)

    drawn = [difference(rng.multinomial(n_units, np.full(n_units, 1 / n_units))[unit]) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return difference(np.ones(len(wrong))), float(low), float(high)


def _cleanlab(runs: Path, ids: pd.Index) -> dict[str, np.ndarray]:
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return {}
    loaded = load_runs(str(runs))
    held = loaded.held_out()
    probabilities = mean_probabilities(loaded, held)
    assert probabilities is not None
    probabilities = probabilities / probabilities.sum(1, keepdims=True)
    rows = held.rows_of(ids)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
            for adjust in (False, True) if method != "confidence_weighted_entropy" else (False,):
                scores = get_label_quality_scores(held.labels, probabilities, method=method, adjust_pred_probs=adjust)
                found[method + (", adjusted" if adjust else "")] = scores[rows]
    return found


def _print(title: str, results: list[dict]) -> None:
    print(f"\n{title}: mean of {len(results)} planting(s)\n")
    head = list(results[0]["scores"]["suspicion"])
    print(f"| score | {' | '.join(head)} |\n| --- |{' --- |' * len(head)}")
    for key in results[0]["scores"]:
        cells = [np.mean([result["scores"][key][name] for result in results]) for name in head]
        print(
            f"| {key} | "
            + " | ".join(
                f"{c:.3f}" if c <= 1 and n in ("AP", "AUROC") else f"{c:.1f}" for c, n in zip(cells, head, strict=True)
            )
            + " |"
        )
    for result in results:
        summary = result["summary"]
        off = summary["estimate"] / summary["planted"] - 1
        print(summary["against best"])
        print(
            f"planted {summary['planted']}, estimated {summary['estimate']:.0f} ({off:+.0%}; "
            f"95% interval {summary['interval'][0]:.0f} to {summary['interval'][1]:.0f}); "
            f"{summary['issues']} label issues, {summary['precision']:.0f}% of them planted; "
            f"{summary['suggested']:.0f}% of the found ones with the right "
            f"suggestion; {summary['found before stop_rank']} found in the first {summary['stop_rank']}"
        )


if __name__ == "__main__":
    main()
