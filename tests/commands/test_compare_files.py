"""`mlfix compare` on files of predictions and on runs that are not whole: numbers, mistakes, and partial results."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import draw_shapes

from mlfix_train.commands import rerun
from mlfix_train.config.compose import load
from mlfix_train.data.runs import FAILED, FINISHED, RUNNING, RunDirectory

LABELS = ("speed-50", "speed-70", "stop", "yield")
IDS = [f"{LABELS[i % 4]}/photo{i // 3}-{i}.jpg" for i in range(96)]
REMOVED = IDS[:6]
RUNS = 6


def predictions(rate: float, seed: int) -> list[tuple[str, str, str, float]]:
    """Rows (sample, label, pred, loss of 0 or more); ``rate`` of the predictions are drawn at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in IDS:
        label = name.split("/")[0]
        pred = LABELS[rng.integers(4)] if rng.random() < rate or name in REMOVED else label
        rows.append((name, label, pred, round(float(rng.exponential()), 6)))
    return rows


def write_published(path: Path, rows: list[tuple[str, str, str, float]]) -> None:
    """Writes predictions as MLfix does: paths, pred, and the negative of the loss."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "pred", "loss"])
        writer.writerows((f"crops/{name}", pred, -loss) for name, _, pred, loss in rows)


def as_table(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["sample_id", "label", "pred", "loss"])


@pytest.fixture(scope="module")
def published_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files of each arm; those of the fixed arm lack the samples that the fixes take out, as MLfix's do."""
    work = tmp_path_factory.mktemp("published")
    for seed in range(RUNS):
        write_published(work / f"original-preds-{seed}.csv", predictions(0.5, seed))
        rows = [row for row in predictions(0.15, 100 + seed) if row[0] not in REMOVED]
        write_published(work / f"fixed-preds-{seed}.csv", rows)
    lines = [f"crops/{name},invalid" for name in REMOVED] + ["crops/stop/training-1.jpg,invalid"]
    (work / "fixes.csv").write_text("\n".join([",new_label", *lines, f"crops/{IDS[10]},speed-70"]) + "\n")
    return work


@pytest.fixture
def files(published_files: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published_files, tmp_path / "files"))


def keys(files: Path, *more: str) -> list[str]:
    arms = [f"{arm}={files}/{arm}-preds-*.csv" for arm in ("original", "fixed")]
    return [*arms, f"fixes.path={files}/fixes.csv", f"out={files}/out", "resamples=500", "logger=none", *more]


def reference(files: Path, pattern: str = "") -> dict[str, float]:
    """The four errors in percent, by loops over the lines of the files."""
    errors: dict[str, list[float]] = {}
    for arm in ("original", "fixed"):
        for seed in range(RUNS):
            with open(files / f"{arm}-preds-{seed}.csv", encoding="utf-8", newline="") as file:
                rows = [(name.split("/", 1)[1], pred) for name, pred, _ in list(csv.reader(file))[1:]]
            rows = [(name, pred) for name, pred in rows if pattern in name.split("/")[0]]
            given = [pred != name.split("/")[0] for name, pred in rows]
            clean = [
                pred != ("speed-70" if name == IDS[10] else name.split("/")[0])
                for name, pred in rows
                if name not in REMOVED
            ]
            errors.setdefault(f"{arm}_on_original", []).append(100 * sum(given) / len(given))
            errors.setdefault(f"{arm}_on_clean", []).append(100 * sum(clean) / len(clean))
    return {name: sum(values) / len(values) for name, values in errors.items()}


def check(files: Path, summary: dict[str, Any], runs: int = RUNS) -> None:
    for name, pattern in (("all", ""), ("speed", "speed")):
        wanted, piece = reference(files, pattern), summary["slices"][name]
        for key in ("original_on_original", "original_on_clean", "fixed_on_clean"):
            assert piece["error"][key] == pytest.approx(wanted[key], abs=1e-5)
            assert len(piece["runs"][key]) == runs
        effect = piece["effect"]
        assert effect["training"] == pytest.approx(wanted["original_on_clean"] - wanted["fixed_on_clean"])
        assert effect["total"] == pytest.approx(wanted["original_on_original"] - wanted["fixed_on_clean"])
        assert effect["total"] == pytest.approx(effect["evaluation"] + effect["training"])


def refused(answer: Any, problem: str, hint: str, code: int = 1) -> None:
    assert answer.code == code, answer.err
    assert problem in answer.err
    assert hint in answer.err.split("  -> ", 1)[1]
    assert "Traceback" not in answer.err


# --- files ---


def test_published_files(files: Path, mlfix) -> None:
    answer = mlfix("compare", *keys(files, "slices.speed=speed", "name=published"))
    assert answer.code == 0, answer.err
    out = files / "out"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    check(files, summary)
    assert summary["held_out"] == 96 and summary["groups"] == 32, "crops of one photo are drawn together"
    assert summary["fixes"] == {"total": 8, "held_out": 7, "training": 1}
    assert summary["arms"]["fixed"] == {"runs": [str(seed) for seed in range(RUNS)], "paired": False}
    assert summary["partial"] == [] and not summary["headline"].startswith("PARTIAL")
    assert summary["settings"]["resamples"] == 500 and summary["name"] == "published"
    assert summary["sources"]["fixed"] == [f"{files}/fixed-preds-{seed}.csv" for seed in range(RUNS)]
    assert summary["slices"]["all"]["verdict"] == "better"
    markdown, page = ((out / name).read_text(encoding="utf-8") for name in ("compare.md", "compare.html"))
    assert summary["headline"] in markdown and summary["headline"] in answer.out
    assert summary["slices"]["not speed"]["sentence"] in markdown
    assert "Partial" not in markdown and "Partial" not in page
    assert page.count("data:image/svg+xml;base64,") == 2 * 3 + 1
    pictures = {"all", "all-effect", "speed", "speed-effect", "not-speed", "not-speed-effect", "labels"}
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in pictures} | {
        "summary.json",
        "compare.md",
        "compare.html",
        "study.json",
        "study.html",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    assert str(out / "compare.html") in answer.out


def test_parquet_files_give_the_same_numbers(files: Path, mlfix) -> None:
    for seed in range(RUNS):
        as_table(predictions(0.5, seed)).to_parquet(files / f"o-{seed}.parquet", index=False)
        fixed = as_table(predictions(0.15, 100 + seed)).sample(frac=1, random_state=seed)
        fixed[~fixed["sample_id"].isin(REMOVED)].to_parquet(files / f"f-{seed}.pq", index=False)
    more = (f"original={files}/o-*.parquet", f"fixed={files}/f-*.pq", r"group=(photo\d+)-", "slices.speed=speed")
    answer = mlfix("compare", *keys(files, *more, "paired=true"))
    assert answer.code == 0, answer.err
    summary = json.loads((files / "out/summary.json").read_text(encoding="utf-8"))
    check(files, summary)
    assert summary["groups"] == 32
    assert summary["arms"]["fixed"]["paired"] and summary["slices"]["all"]["effect"]["runs"] == [RUNS]
    assert list(summary["slices"]["all"]["effect"]["training_runs"]) == [str(seed) for seed in range(RUNS)]


@pytest.mark.slow
def test_a_comparison_repeats_exactly_and_its_seed_changes_intervals_alone(files: Path, mlfix) -> None:
    found = []
    few = (f"original={files}/original-preds-[0-3].csv", f"fixed={files}/fixed-preds-[0-3].csv")
    for seed in (0, 0, 1):
        answer = mlfix("compare", *keys(files, *few, f"seed={seed}"))
        assert answer.code == 0, answer.err
        found.append(json.loads((files / "out/summary.json").read_text(encoding="utf-8")))
    assert found[0] == found[1]
    effects = [summary["slices"]["all"]["effect"] for summary in found]
    assert effects[0]["training"] == effects[2]["training"]
    assert effects[0]["training_ci95"] != effects[2]["training_ci95"]


def test_a_csv_of_our_own_with_odd_labels_and_columns_for_slices(tmp_path: Path, mlfix) -> None:
    """Labels and values that HTML, CSV and Markdown would trip over; one run of each arm."""
    rng = np.random.default_rng(0)
    labels = np.array(['<b>&"x"\'', "停, 止", "020"] * 12)
    table = pd.DataFrame({"sample_id": [f"s{i}" for i in range(36)], "label": labels})
    table.assign(pred=rng.permutation(labels)).to_csv(tmp_path / "o.csv", index=False)
    table.assign(pred=labels).to_csv(tmp_path / "f.csv", index=False)
    table.assign(path="x.png", light=["<dim>", "bright"] * 18).to_csv(tmp_path / "samples.csv", index=False)
    (tmp_path / "fixes.csv").write_text("sample_id,new_label\ns0,020\ns1,invalid\n", encoding="utf-8")
    answer = mlfix(
        "compare",
        f"original={tmp_path}/o.csv",
        f"fixed={tmp_path}/f.csv",
        f"out={tmp_path}/out",
        f"fixes.path={tmp_path}/fixes.csv",
        f"samples={tmp_path}/samples.csv",
        "slices.light={column: light}",
        "slices.some=[020]",
        "logger=none",
    )
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert list(summary["slices"]) == ["all", "light=<dim>", "light=bright", "some", "not some"]
    assert [piece["rows_original"] for piece in summary["slices"].values()] == [36, 18, 18, 12, 24]
    assert {row["label"] for row in summary["labels"]} == set(labels)
    assert {piece["verdict"] for piece in summary["slices"].values()} == {"too_few_runs"}
    assert summary["headline"].startswith("Too few runs to tell: ")
    page = (tmp_path / "out/compare.html").read_text(encoding="utf-8")
    assert "<dim>" not in page and "<b>&" not in page and "light=&lt;dim&gt;" in page and "停, 止" in page
    assert len(list((tmp_path / "out").glob("light-*dim.png"))) == 1


# --- mistakes ---


@pytest.mark.parametrize(
    ("change", "problem", "hint"),
    [
        (["original=[{files}/original-preds-0.csv,{files}/original-preds-*.csv]"], "preds-0.csv twice", "once"),
        (
            ["fixed=[{files}/fixed-preds-1.csv,{files}/original-preds-1.csv]"],
            "original= and fixed= contain the same run: {files}/original-preds-1.csv",
            "different runs for each arm",
        ),
        (["fixed={files}"], "fixed={files} contains no run", "a run directory"),
        (["control={files}/none"], "control={files}/none matches nothing", "a glob"),
        (["original={files}/none-*.csv"], "original={files}/none-*.csv matches nothing", "a glob"),
        (["original={files}/fixes.csv"], "lacks the columns sample_id, label, pred", "sample_id, label and one of"),
        (["fixes.path={files}/none.csv"], "fixes.path={files}/none.csv", "check the path"),
        (["fixes.path={files}/fixed-preds-0.csv"], "lacks sample_id, new_label", "name the columns"),
    ],
)
def test_wrong_files(change: list[str], problem: str, hint: str, files: Path, mlfix) -> None:
    answer = mlfix("compare", *keys(files, *[text.format(files=files) for text in change]))
    refused(answer, problem.format(files=files), hint)
    assert not (files / "out").exists(), "nothing is written"


@pytest.mark.parametrize(
    ("change", "problem", "hint"),
    [
        ("slices.x=hexagon", "slices.x=hexagon matches none of the labels", "speed-50"),
        ("slices.x=[stp]", "slices.x lists 'stp'", "'stop'"),
        ("slices.x={column: light}", "the data has no column 'light'", "samples="),
        ("slices.all=stop", "slices.all: this name is taken", "another name"),
        ("resamples=5", "resamples=5 is out of range", "100 to 10,000,000"),
        ("resamples=many", "resamples=many is not an integer", "use an integer"),
        ("seed=-1", "seed=-1 is out of range", "from 0"),
        ("ignore=[copys]", "ignore=copys is not one of settings", "copies"),
        ("resample=500", "unknown key resample", "resamples"),
        ("out=", "out=", "set out=<folder>"),
    ],
)
def test_wrong_settings(change: str, problem: str, hint: str, files: Path, mlfix) -> None:
    refused(mlfix("compare", *keys(files, change)), problem, hint, code=2)
    assert not (files / "out").exists()


def test_pairs_of_files_without_common_numbers(files: Path, mlfix) -> None:
    more = (f"fixed=[{files}/fixed-preds-5.csv]", "paired=true")
    refused(mlfix("compare", *keys(files, *more)), "fewer than two runs of the same name", "paired=false")


def test_a_file_given_through_a_link_is_the_same_file(files: Path, mlfix) -> None:
    os.symlink(files / "original-preds-2.csv", files / "fixed-preds-9.csv")
    refused(mlfix("compare", *keys(files)), "contain the same run", "different runs")
    (files / "fixed-preds-9.csv").unlink()
    os.symlink(files / "fixed-preds-2.csv", files / "fixed-preds-9.csv")
    refused(mlfix("compare", *keys(files)), "twice", "once")


def test_a_copy_under_another_name_is_found(files: Path, mlfix) -> None:
    lines = (files / "fixed-preds-3.csv").read_text().splitlines()
    (files / "fixed-preds-8.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    answer = mlfix("compare", *keys(files))
    refused(answer, "fixed 8 has exactly the losses of fixed 3: one is a copy of the other", "ignore=[copies]")
    assert mlfix("compare", *keys(files, "ignore=[copies]")).code == 0
    summary = json.loads((files / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["slices"]["all"]["effect"]["runs"] == [RUNS, RUNS + 1]


def test_fixes_of_other_data_are_refused_unless_meant(files: Path, mlfix) -> None:
    (files / "fixes.csv").write_text("sample_id,new_label\nelsewhere/1.jpg,invalid\nelsewhere/2.jpg,stop\n")
    answer = mlfix("compare", *keys(files))
    refused(answer, f"fixes.path={files}/fixes.csv: none of its 2 lines matches a held-out sample", "ignore=[fixes]")
    assert repr(sorted(IDS)[0]) in answer.err or repr(IDS[0]) in answer.err


def test_fixes_that_are_all_in_training_have_no_evaluation_effect(files: Path, mlfix) -> None:
    (files / "fixes.csv").write_text("sample_id,new_label\nelsewhere/1.jpg,invalid\nelsewhere/2.jpg,stop\n")
    few = (f"original={files}/original-preds-[01].csv", f"fixed={files}/whole-*.csv", "ignore=[fixes]")
    for seed in range(2):
        write_published(files / f"whole-{seed}.csv", predictions(0.1, 50 + seed))
    answer = mlfix("compare", *keys(files, *few))
    assert answer.code == 0, answer.err
    summary = json.loads((files / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["fixes"] == {"total": 2, "held_out": 0, "training": 2}
    assert summary["slices"]["all"]["effect"]["evaluation"] == 0


def test_files_that_lack_kept_samples_are_named(files: Path, mlfix) -> None:
    lines = (files / "fixed-preds-2.csv").read_text().splitlines(keepends=True)
    (files / "fixed-preds-2.csv").write_text("".join(lines[:-1]))
    answer = mlfix("compare", *keys(files))
    refused(answer, "fixed 2 and original 0 do not hold out the same samples", "the same data and split")
    assert f"1 samples differ: {IDS[-1]}" in answer.err


def test_a_bad_line_names_its_file_and_number(files: Path, mlfix) -> None:
    with open(files / "fixed-preds-4.csv", "a", encoding="utf-8") as file:
        file.write("crops/stop/photo9-99.jpg,stop,low\n")
    answer = mlfix("compare", *keys(files))
    refused(answer, f"{files}/fixed-preds-4.csv: line 92 has the loss 'low'", "losses must be finite numbers")


def test_conflicting_fixes_are_named(files: Path, mlfix) -> None:
    with open(files / "fixes.csv", "a", encoding="utf-8") as file:
        file.write(f"crops/{IDS[10]},stop\n")
    answer = mlfix("compare", *keys(files))
    refused(answer, "1 sample(s) have two different", "fixes.ignore=[conflicts]")
    assert "line 10" in answer.err


# --- runs that are not whole ---

SHAPES = ("disc", "square", "triangle")


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished seeds of each arm, written as `mlfix train` writes them."""
    work = tmp_path_factory.mktemp("runs")
    root = draw_shapes(work / "shapes", per_label=12)
    ids = [f"{label}/{number:03d}.png" for label in SHAPES for number in range(6)]
    (work / "fixes.csv").write_text(f"sample_id,new_label\n{ids[0]},invalid\n{ids[7]},disc\ndisc/011.png,invalid\n")
    for arm, rate in (("original", 0.5), ("fixed", 0.1)):
        settings = asdict(load("train", [f"data.root={root}", f"arm={arm}", "name=study"]))
        for seed in range(4):
            rng = np.random.default_rng([seed, len(arm)])
            given = [name.split("/")[0] for name in ids]
            preds = [str(rng.choice(SHAPES)) if rng.random() < rate else label for label in given]
            rows = {"sample_id": ids, "split": "val", "label": given, "pred": preds, "loss": rng.random(18)}
            run = seed_of(work, arm, seed)
            run.update(
                status=FINISHED,
                config={**settings, "seed": seed},
                data={},
                labels=list(SHAPES),
                identity={"arm": arm, "seed": seed, "split": {"fold": None}, "fixes": None},
            )
            pd.DataFrame(rows).to_parquet(run.predictions, index=False)
    return work


@pytest.fixture
def runs(whole_runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_runs, tmp_path / "runs"))


def run_keys(runs: Path, *more: str) -> list[str]:
    arms = [f"{arm}={runs}/o/study/{arm}" for arm in ("original", "fixed")]
    return [*arms, f"fixes.path={runs}/fixes.csv", f"out={runs}/out", "resamples=200", "logger=none", *more]


def seed_of(runs: Path, arm: str, seed: int) -> RunDirectory:
    return RunDirectory(runs / f"o/study/{arm}/seed={seed}")


def test_whole_runs_are_not_partial(runs: Path, mlfix) -> None:
    answer = mlfix("compare", *run_keys(runs))
    assert answer.code == 0, answer.err
    summary = json.loads((runs / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["partial"] == [] and summary["left_out"] == [] and summary["name"] == "study"
    assert summary["arms"]["fixed"] == {"runs": [f"seed={seed}" for seed in range(4)], "paired": True}
    assert summary["fixes"] == {"total": 3, "held_out": 2, "training": 1}
    for name in ("compare.md", "compare.html"):
        assert "partial" not in (runs / "out" / name).read_text(encoding="utf-8").split("</style>")[-1].lower()


def test_unfinished_and_failed_runs_make_a_partial_result_that_says_so(runs: Path, mlfix) -> None:
    seed_of(runs, "fixed", 1).update(status=FAILED)
    seed_of(runs, "original", 3).update(status=RUNNING)
    answer = mlfix("compare", *run_keys(runs))
    assert answer.code == 0, answer.err
    summary = json.loads((runs / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["headline"].startswith("PARTIAL: ")
    told = [f"original: {runs}/o/study/original/seed=3 is running", f"fixed: {runs}/o/study/fixed/seed=1 is failed"]
    assert summary["partial"][:2] == told
    assert "original seed=1, fixed seed=3" in summary["partial"][2]
    assert summary["left_out"] == ["original seed=1", "fixed seed=3"]
    for arm in ("original", "fixed"):
        assert summary["arms"][arm]["runs"] == ["seed=0", "seed=2"], "errors speak of the same seeds"
    markdown, page = ((runs / "out" / name).read_text(encoding="utf-8") for name in ("compare.md", "compare.html"))
    for line in summary["partial"]:
        assert line in markdown and line in page and f"partial: {line}" in answer.err
    assert "**Partial result:**" in markdown
    assert markdown.index("**Partial result:**") < markdown.index("| samples")
    assert "Partial result." in page and page.index("Partial result.") < page.index("<table>")
    assert "PARTIAL: " in markdown and "PARTIAL: " in page and "PARTIAL: " in answer.out


def test_a_seed_that_lacks_a_fold_is_left_out_and_named(runs: Path, mlfix) -> None:
    for arm in ("original", "fixed"):
        for seed in range(4):
            run = seed_of(runs, arm, seed)
            table, about = pd.read_parquet(run.predictions), run.read()
            shutil.rmtree(run.path)
            for fold in range(2):
                about["config"]["split"].update(folds=2, fold=fold)
                part = RunDirectory(f"{run.path},fold={fold}")
                part.update(**about)
                table.iloc[fold::2].to_parquet(part.predictions, index=False)
    RunDirectory(f"{seed_of(runs, 'fixed', 2).path},fold=1").update(status=FAILED)
    answer = mlfix("compare", *run_keys(runs))
    assert answer.code == 0, answer.err
    summary = json.loads((runs / "out/summary.json").read_text(encoding="utf-8"))
    assert f"fixed: {runs}/o/study/fixed/seed=2,fold=1 is failed" in summary["partial"]
    assert "fixed: seed=2 lacks the fold(s) 1 and is left out" in summary["partial"]
    assert summary["arms"]["fixed"]["runs"] == summary["arms"]["original"]["runs"] == ["seed=0", "seed=1", "seed=3"]
    assert summary["held_out"] == 18


def test_a_finished_run_without_predictions_is_partial(runs: Path, mlfix) -> None:
    seed_of(runs, "fixed", 0).predictions.unlink()
    answer = mlfix("compare", *run_keys(runs))
    assert answer.code == 0, answer.err
    summary = json.loads((runs / "out/summary.json").read_text(encoding="utf-8"))
    assert "seed=0 has no predictions.parquet; train it again" in summary["partial"][0]
    assert summary["headline"].startswith("PARTIAL: ")


def test_no_finished_run_is_no_result(runs: Path, mlfix) -> None:
    for seed in range(4):
        seed_of(runs, "fixed", seed).update(status=FAILED)
    answer = mlfix("compare", *run_keys(runs))
    refused(answer, "none of its 4 run(s) is finished", "wait for them")
    assert f"{runs}/o/study/fixed/seed=2 is failed" in answer.err
    assert not (runs / "out").exists()


def test_runs_of_the_other_arm_are_refused(runs: Path, mlfix) -> None:
    answer = mlfix("compare", *run_keys(runs, f"fixed={runs}/o/study/original"))
    refused(answer, "contains a run of arm=original", "arm=fixed")


def test_a_file_of_predictions_of_a_run_stands_for_the_run(runs: Path, mlfix) -> None:
    more = [f"{arm}={runs}/o/study/{arm}/seed=*/predictions.parquet" for arm in ("original", "fixed")]
    answer = mlfix("compare", *run_keys(runs, *more))
    assert answer.code == 0, answer.err
    summary = json.loads((runs / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["arms"]["fixed"] == {"runs": [f"seed={seed}" for seed in range(4)], "paired": True}


def test_paired_maybe(mlfix) -> None:
    answer = mlfix("compare", "original=a", "fixed=b", "fixes.path=c", "paired=maybe", "logger=none")
    assert answer.code == 2
    assert "paired=maybe" in answer.err


# --- faults ---


def test_warnings_of_other_modules_are_not_silenced(files: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixes of training samples, which prediction files don't hold, are no reason to change another module's logger."""
    from mlfix_train.audit.comparison import inputs
    from mlfix_train.data.fixes import table as fixes_table

    heard: list[bool] = []
    match = inputs.match_fixes

    def matching(*arguments: Any) -> pd.DataFrame:
        heard.append(logging.getLogger(fixes_table.__name__).isEnabledFor(logging.WARNING))
        return match(*arguments)

    monkeypatch.setattr(inputs, "match_fixes", matching)
    answer = mlfix("compare", *keys(files))
    assert answer.code == 0, answer.err
    assert heard == [True]
    assert "left out" not in answer.err, "a fix of a training sample is not a mistake"


def test_a_wandb_run_does_not_stay_open_if_logging_fails(files: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from mlfix_train.commands import compare

    def fail(*arguments: Any) -> None:
        assert wandb.run is not None
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compare, "log_comparison", fail)
    answer = mlfix("compare", *keys(files, "logger=wandb"))
    assert answer.code == 1, answer.err
    assert wandb.run is None


# --- looks and plans ---


def test_a_second_look_without_a_plan_is_told(runs: Path, mlfix) -> None:
    early = [f"{arm}={runs}/o/study/{arm}/seed=[01]" for arm in ("original", "fixed")]
    assert mlfix("compare", *run_keys(runs, *early)).code == 0
    assert json.loads((runs / "out/summary.json").read_text(encoding="utf-8"))["looks"] is None
    answer = mlfix("compare", *run_keys(runs))
    summary, card = (
        json.loads((runs / f"out/{name}.json").read_text(encoding="utf-8")) for name in ("summary", "study")
    )
    assert summary["looks"]["planned"] is False and summary["looks"]["taken"] == [2, 4]
    said = "looked at 2 times, after 2 and 4 runs of each arm, without a plan"
    for text in (answer.out, *((runs / f"out/{name}").read_text() for name in ("compare.md", "compare.html"))):
        assert said in text
    assert [look["runs"] for look in card["looks"]] == [2, 4] and card["looks"][1]["headline"] == summary["headline"]
    assert mlfix("compare", *run_keys(runs)).code == 0
    assert len(json.loads((runs / "o/study/looks.json").read_text())["looks"]) == 2, (
        "the same runs again are no new look"
    )


def test_the_primary_slice_is_named_beforehand(files: Path, mlfix) -> None:
    answer = mlfix("compare", *keys(files, "slices.speed=speed", "primary=sped"))
    refused(answer, "primary=sped is no slice", "did you mean 'speed'", code=2)
    assert mlfix("compare", *keys(files, "slices.speed=speed", "primary=speed")).code == 0
    summary = json.loads((files / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["primary"] == "speed" and " on speed (" in summary["headline"]
    assert "speed is the primary slice and is tested alone" in (files / "out/compare.html").read_text(encoding="utf-8")


def test_a_plan_from_a_pilot(files: Path, mlfix) -> None:
    pilot = [f"{arm}={files}/{arm}-preds-[012].csv" for arm in ("original", "fixed")]
    more = (f"fixes.path={files}/fixes.csv", f"out={files}/plan", "slices.speed=speed")
    answer = mlfix("plan", *pilot, *more, "effect=10")
    assert answer.code == 0, answer.err
    plan = json.loads((files / "plan/plan.json").read_text(encoding="utf-8"))
    assert list(plan["slices"]) == ["all", "speed"] and plan["pilot"] == {"original": 3, "fixed": 3}
    one = plan["slices"]["all"]
    assert one["runs"] >= 4 and one["trainings"] == 3 * one["runs"] and one["runs_at_most"] >= one["runs"]
    assert "To show an effect of 10 points with 80% power (pilot: 3 original, 3 fixed)" in answer.out
    assert {path.name for path in (files / "plan").iterdir()} == {
        "plan.json",
        *(f"{n}.{k}" for n in plan["slices"] for k in ("png", "svg")),
    }
    answer = mlfix("plan", *[text.replace("[012]", "0") for text in pilot], *more)
    refused(answer, "the pilot can't tell how much runs differ", "mlfix train -m sweep=before_after")


def test_a_card_of_files_or_of_other_data_is_not_repeated(files: Path, runs: Path, mlfix) -> None:
    assert mlfix("compare", *keys(files)).code == 0
    refused(
        mlfix("rerun", f"card={files}/out/study.json"), "has no settings: it is of prediction files", "run directories"
    )
    refused(mlfix("rerun", f"card={files}/none.json"), "there is no such file", "study.json")
    assert mlfix("compare", *run_keys(runs)).code == 0
    card = json.loads((runs / "out/study.json").read_text(encoding="utf-8"))
    assert card["fixes"]["total"] == 3 and len(card["fixes"]["list"]) == 3 and card["runs"]["fixed"][0] == "seed=0"
    whole = {"group": None, "samples": None, "paired": "auto", "ignore": [], "ignored_fixes": []}
    assert card["comparison"] == {"resamples": 200, "seed": 0, **whole}
    card["data"]["fingerprint"] = "0" * 64
    (runs / "card.json").write_text(json.dumps(card))
    answer = mlfix("rerun", f"card={runs}/card.json", f"outputs={runs}/again", f"out={runs}/new")
    refused(answer, "these are not the data of", "ignore=[data]")
    assert not (runs / "again").exists()


def test_a_study_is_compared_again_as_it_was(runs: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"{label}/{number:03d}.png" for label in SHAPES for number in range(6)]
    pd.DataFrame({"sample_id": ids, "light": ["night", "day"] * 9}).to_csv(runs / "light.csv", index=False)
    chosen = [f"samples={runs}/light.csv", "slices.dark={column: light, values: [night]}", "group=[^/]+$", "seed=3"]
    allowed = ["paired=false", "ignore=[copies]", "fixes.ignore=[stale]"]
    assert mlfix("compare", *run_keys(runs, *chosen, *allowed)).code == 0
    then, card = (json.loads((runs / f"out/{name}.json").read_text()) for name in ("summary", "study"))
    (runs / "card.json").write_text(json.dumps({**card, "data": {"fingerprint": "0" * 64}}))
    seen: list[Any] = []
    monkeypatch.setattr(rerun.train, "run", lambda cfg: None)
    monkeypatch.setattr(rerun.compare, "run", lambda cfg: seen.append(cfg) or then)
    again = ["rerun", f"card={runs}/card.json", f"outputs={runs}/again", f"out={runs}/new", "ignore=[data]"]
    answer = mlfix(*again)
    assert answer.code == 0, answer.err
    (cfg,) = seen
    assert cfg.samples == f"{runs}/light.csv" and cfg.group == "[^/]+$" and cfg.seed == 3 and cfg.resamples == 200
    assert cfg.paired is False and cfg.ignore == ["copies"] and cfg.fixes.ignore == ["stale"] and "dark" in cfg.slices
    (runs / "light.csv").rename(runs / "here.csv")
    refused(mlfix(*again), "light.csv is not there", "samples=<your copy of it>")
    assert mlfix(*again, f"samples={runs}/here.csv").code == 0 and seen[1].samples == f"{runs}/here.csv"
