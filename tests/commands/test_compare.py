"""`mlfix audit` and `mlfix compare` on real runs, and what they say to mistakes; the demo, small."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from shapes import FAST, draw_shapes

from mlfix_train.commands import run_command


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of each arm, on shapes of which some squares are called discs."""
    work = tmp_path_factory.mktemp("study")
    shapes = draw_shapes(work / "shapes", per_label=30)
    for number in range(6):
        (shapes / f"square/{number:03d}.png").rename(shapes / f"disc/9{number:02d}.png")
    wrong = [f"disc/9{number:02d}.png" for number in range(6)]
    (work / "fixes.csv").write_text(
        "sample_id,new_label\n"
        + "".join(f"{name},square\n" for name in wrong[:3])
        + "".join(f"{name},invalid\n" for name in wrong[3:])
    )
    for seed in (0, 1):
        for arm in ("original", "fixed", "control"):
            keys = [f"data.root={shapes}", f"outputs={work}/o", *FAST, f"fixes.path={work}/fixes.csv"]
            run_command("train", *keys, f"arm={arm}", f"seed={seed}")
    return work


def keys(study: Path, *more: str) -> list[str]:
    arms = [f"{arm}={study}/o/default/{arm}" for arm in ("original", "fixed")]
    return [*arms, f"fixes.path={study}/fixes.csv", *more]


def test_the_four_errors_and_the_split_of_the_effect(study: Path, tmp_path: Path, mlfix) -> None:
    out = tmp_path / "out"
    more = (f"control={study}/o/default/control", "slices.round=^disc", f"out={out}")
    answer = mlfix("compare", *keys(study, *more))
    assert answer.code == 0, answer.err
    summary = json.loads((out / "summary.json").read_text())
    fixes = pd.read_csv(study / "fixes.csv").set_index("sample_id")["new_label"]
    for name, pattern in (("all", ""), ("round", "^disc"), ("not round", "^(?!disc)")):
        errors = {}
        for arm in ("original", "fixed", "control"):
            rates = {"original": [], "clean": []}
            for seed in (0, 1):
                rows = pd.read_parquet(study / f"o/default/{arm}/seed={seed}/predictions.parquet")
                rows = rows[rows["label"].str.contains(pattern)]
                rates["original"].append((rows["pred"] != rows["label"]).mean())
                clean = rows.assign(
                    label=fixes.reindex(rows["sample_id"]).fillna(rows.set_index("sample_id")["label"]).to_numpy()
                )
                clean = clean[clean["label"] != "invalid"]
                rates["clean"].append((clean["pred"] != clean["label"]).mean())
            errors |= {f"{arm}_on_{kind}": 100 * sum(values) / 2 for kind, values in rates.items()}
        piece = summary["slices"][name]
        assert piece["error"] == pytest.approx(errors, abs=1e-5)
        effect = piece["effect"]
        assert effect["total"] == pytest.approx(errors["original_on_original"] - errors["fixed_on_clean"], abs=1e-5)
        assert effect["total"] == pytest.approx(effect["evaluation"] + effect["training"])
        control = errors["original_on_clean"] - errors["control_on_clean"]
        assert piece["control"]["effect"]["training"] == pytest.approx(control, abs=1e-5)
    assert (out / "compare.md").read_text().count("|") > 20
    assert {"all.png", "round.png", "not-round.png"} <= {path.name for path in out.iterdir()}
    assert "training effect [95% interval]" in answer.out and summary["headline"] in answer.out


@pytest.mark.slow
def test_a_study_is_repeated_from_its_card(study: Path, tmp_path: Path, mlfix) -> None:
    assert mlfix("compare", *keys(study, f"out={tmp_path}/then")).code == 0
    answer = mlfix("rerun", f"card={tmp_path}/then/study.json", f"outputs={tmp_path}/o", f"out={tmp_path}/now")
    assert answer.code == 0, answer.err
    then, now = (json.loads((tmp_path / f"{name}/summary.json").read_text()) for name in ("then", "now"))
    assert now["slices"]["all"]["error"] == pytest.approx(then["slices"]["all"]["error"])
    assert now["headline"] == then["headline"] and "then" in answer.out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["original={study}/o/nothing"], "matches nothing"),
        (["original={study}/shapes"], "no run"),
        (["fixed={study}/o/default/original"], "a run of arm=original"),
        (["slices.x=hexagon"], "matches none of the labels"),
        (["slices.x=["], "not a valid regular expression"),
        (["fixes.path={study}/nofile.csv"], "nofile.csv"),
        (["fixes.path={study}/other.csv"], "isn't in the data"),
        (["out={study}/fixes.csv"], "fixes.csv"),
    ],
)
def test_mistakes_are_one_clear_message(change: list[str], told: str, study: Path, tmp_path: Path, mlfix) -> None:
    (study / "other.csv").write_text("sample_id,new_label\nelsewhere/1.png,invalid\n")
    answer = mlfix("compare", *keys(study, f"out={tmp_path}/x", *[text.format(study=study) for text in change]))
    assert answer.code in (1, 2), answer.out
    assert told in answer.err
    assert "->" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.slow
def test_a_control_arm_that_excludes_nothing_is_left_out(study: Path, tmp_path: Path, mlfix) -> None:
    (tmp_path / "fixes.csv").write_text("sample_id,new_label\ndisc/900.png,square\ndisc/901.png,square\n")
    base = [f"data.root={study}/shapes", f"outputs={tmp_path}/o", *FAST, f"fixes.path={tmp_path}/fixes.csv"]
    trained = mlfix("train", "-m", *base, "recipe.epochs=1", "seed=0,1", "arm=original,fixed,control")
    assert trained.code == 0, trained.err
    assert "arm=control excludes nothing" in trained.err.split("epoch 1")[0], "before anything is trained"
    arms = [f"{arm}={tmp_path}/o/default/{arm}" for arm in ("original", "fixed", "control")]
    answer = mlfix("compare", *arms, f"fixes.path={tmp_path}/fixes.csv", f"out={tmp_path}/x", "logger=none")
    assert answer.code == 0, answer.err
    assert "the control arm is left out" in answer.err
    summary = json.loads((tmp_path / "x/summary.json").read_text())
    assert "control" not in summary["slices"]["all"]
    assert any("control arm is left out" in note for note in summary["notes"])


def test_arms_must_differ_in_nothing_but_the_fixes(study: Path, tmp_path: Path, mlfix) -> None:
    base = (f"data.root={study}/shapes", f"outputs={tmp_path}/o", *FAST, "arm=fixed")
    assert mlfix("train", *base, f"fixes.path={study}/fixes.csv", "recipe.epochs=1", "name=short").code == 0
    answer = mlfix("compare", *keys(study, f"fixed={tmp_path}/o/short/fixed", f"out={tmp_path}/x"))
    assert answer.code == 1
    assert "recipe.epochs: 2 -> 1" in answer.err
    (tmp_path / "few.csv").write_text("sample_id,new_label\ndisc/900.png,square\n")
    answer = mlfix("compare", *keys(study, f"fixes.path={tmp_path}/few.csv", f"out={tmp_path}/x"))
    assert answer.code == 1
    assert "other fixes" in answer.err
    assert (
        mlfix("compare", *keys(study, f"fixes.path={tmp_path}/few.csv", "ignore=[fixes]", f"out={tmp_path}/x")).code
        == 0
    )


def test_arms_of_other_data_are_named(study: Path, tmp_path: Path, mlfix) -> None:
    shapes = draw_shapes(tmp_path / "other", per_label=20, seed=5)
    assert (
        mlfix(
            "train",
            f"data.root={shapes}",
            f"outputs={tmp_path}/o",
            *FAST,
            "arm=fixed",
            f"fixes.path={study}/fixes.csv",
            "fixes.ignore=[unknown_samples]",
        ).code
        == 0
    )
    answer = mlfix(
        "compare", *keys(study, f"fixed={tmp_path}/o/default/fixed", "ignore=[settings,fixes]", f"out={tmp_path}/x")
    )
    assert answer.code == 1
    assert "do not hold out the same samples" in answer.err


def test_audit_ranks_what_the_runs_held_out(study: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix(
        "audit", f"runs={study}/o/default/original", f"out={tmp_path}/audit", f"fixes.path={study}/fixes.csv"
    )
    assert answer.code == 0, answer.err
    ranking = pd.read_csv(tmp_path / "audit/ranking.csv")
    runs = [pd.read_parquet(study / f"o/default/original/seed={seed}/predictions.parquet") for seed in (0, 1)]
    mean = pd.concat(runs).groupby("sample_id")["loss"].mean()
    assert ranking.set_index("sample_id")["loss"].to_dict() == pytest.approx(mean.to_dict(), rel=1e-5)
    assert "unranked   72 samples" in answer.out
    assert (tmp_path / "audit/panels/worst.png").exists()


def test_audit_says_what_is_missing(study: Path, tmp_path: Path, mlfix) -> None:
    assert mlfix("audit", f"runs={tmp_path}", f"out={tmp_path}/x").code == 1
    from mlfix_train.data.runs import RunDirectory

    RunDirectory(tmp_path / "o/r").update(status="failed", config={"arm": "original"})
    answer = mlfix("audit", f"runs={tmp_path}/o", f"out={tmp_path}/x")
    assert answer.code == 1
    assert "none of these runs is finished" in answer.err


@pytest.mark.slow
def test_the_demo_runs_small(tmp_path: Path, mlfix) -> None:
    small = ("per_class=6", "epochs=1", "seeds=1", "folds=2", "budget=40", "control=false")
    answer = mlfix("demo", f"out={tmp_path}/a demo, with a comma", *small)
    assert answer.code == 0, answer.err
    result = json.loads((tmp_path / "a demo, with a comma/demo.json").read_text())
    assert result["samples"] == 132
    assert result["planted"] == 8
    assert 0 <= result["found"] <= 8
    fixes = pd.read_csv(tmp_path / "a demo, with a comma/fixes.csv")
    assert len(fixes) == result["found"]
    assert "Took" in answer.out
