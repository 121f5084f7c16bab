"""A study: which runs pair, and predictions brought together sample by sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.comparison.study import REMOVED, ArmRuns, Study, build_study, pair_runs
from mlfix_train.errors import RunError

GIVEN = {"s1": "a", "s2": "b", "s3": "a", "s4": "c", "s5": "b"}


def table(preds: str = "abacb", given: dict[str, str] = GIVEN) -> pd.DataFrame:
    return pd.DataFrame({"sample_id": list(given), "label": list(given.values()), "pred": list(preds)})


def arm(name: str, *tables: pd.DataFrame, seeded: bool = True) -> ArmRuns:
    return ArmRuns(name, {f"seed={i}": one for i, one in enumerate(tables)}, seeded)


def fixes(**answers: str) -> pd.DataFrame:
    index = pd.Index(list(answers), name="sample_id", dtype=object)
    return pd.DataFrame({"new_label": pd.Series(list(answers.values()), index=index, dtype=object)})


def without(preds: pd.DataFrame, *samples: str) -> pd.DataFrame:
    return preds[~preds["sample_id"].isin(samples)]


def named(study: Study, arm: str) -> list[list[str | None]]:
    """Predictions by name; ``None`` where there is none."""
    return [[None if code < 0 else str(study.labels[code]) for code in run] for run in study.preds[arm]]


def clean_names(study: Study) -> list[str | None]:
    return [None if code == REMOVED else str(study.labels[code]) for code in study.clean]


# --- pairs ---


def runs(name: str, *seeds: int | str, seeded: bool = True) -> ArmRuns:
    return ArmRuns(name, {f"seed={seed}": table() for seed in seeds}, seeded)


def kept(found) -> dict[str, list[str]]:
    return {one.name: [run.removeprefix("seed=") for run in one.predictions] for one in found.arms}


def test_common_seeds_pair_and_others_are_left_out_by_name() -> None:
    found = pair_runs([runs("original", 0, 1, 2), runs("fixed", 3, 2, 1)])
    assert kept(found) == {"original": ["1", "2"], "fixed": ["1", "2"]}
    assert found.paired == {"original", "fixed"}
    assert found.left_out == ["original seed=0", "fixed seed=3"]


def test_pairs_stand_in_one_order_and_keep_their_tables() -> None:
    first, second = table("aaaaa"), table("bbbbb")
    original = ArmRuns("original", {"seed=1": first, "seed=2": second})
    fixed = ArmRuns("fixed", {"seed=2": table("ccccc"), "seed=1": table("abcab")})
    found = pair_runs([original, fixed])
    assert [list(one.predictions) for one in found.arms] == [["seed=1", "seed=2"]] * 2
    assert found.arms[0].predictions["seed=1"] is first
    assert found.arms[1].predictions["seed=1"] is fixed.predictions["seed=1"]
    assert list(original.predictions) == ["seed=1", "seed=2"] and list(fixed.predictions) == ["seed=2", "seed=1"]


def test_all_three_arms_pair_by_their_common_seeds() -> None:
    found = pair_runs([runs("original", 0, 1, 2, 3, 4), runs("fixed", 0, 1, 2, 3, 4), runs("control", 1, 2, 3, 4, 9)])
    assert kept(found) == {name: ["1", "2", "3", "4"] for name in ("original", "fixed", "control")}
    assert found.paired == {"original", "fixed", "control"}
    assert found.left_out == ["original seed=0", "fixed seed=0", "control seed=9"]


def test_a_control_arm_of_other_seeds_stays_unpaired() -> None:
    found = pair_runs([runs("original", 0, 1), runs("fixed", 0, 1, 5), runs("control", 7, 8, 9)])
    assert kept(found) == {"original": ["0", "1"], "fixed": ["0", "1"], "control": ["7", "8", "9"]}
    assert found.paired == {"original", "fixed"}
    assert found.left_out == ["fixed seed=5", "the pairing of the control arm (it lacks too many of these seeds)"]


@pytest.mark.parametrize(("original", "fixed"), [((0, 1), (1, 2)), ((0, 1), (2, 3)), ((0,), (1,))])
def test_fewer_than_two_common_seeds_pair_nothing_and_lose_nothing(original: tuple, fixed: tuple) -> None:
    found = pair_runs([runs("original", *original), runs("fixed", *fixed)])
    assert kept(found) == {"original": [str(x) for x in original], "fixed": [str(x) for x in fixed]}
    assert found.paired == frozenset() and found.left_out == []


def test_a_sweep_that_has_just_begun_pairs_its_first_seed() -> None:
    found = pair_runs([runs("original", 0, 1), runs("fixed", 0), runs("control", 0)])
    assert kept(found) == {"original": ["0"], "fixed": ["0"], "control": ["0"]}
    assert found.left_out == ["original seed=1"]


def test_one_run_of_each_arm_pairs_if_the_seed_is_one() -> None:
    assert pair_runs([runs("original", 4), runs("fixed", 4)]).paired == {"original", "fixed"}


def test_names_of_files_are_no_seeds_unless_the_user_says_so() -> None:
    files = [runs("original", 0, 1, seeded=False), runs("fixed", 0, 1, seeded=False)]
    assert pair_runs(files).paired == frozenset()
    assert pair_runs(files, paired=True).paired == {"original", "fixed"}
    mixed = [runs("original", 0, 1, seeded=False), runs("fixed", 0, 1)]
    assert pair_runs(mixed).paired == frozenset()


def test_paired_false_pairs_nothing() -> None:
    found = pair_runs([runs("original", 0, 1, 2), runs("fixed", 0, 1)], paired=False)
    assert kept(found) == {"original": ["0", "1", "2"], "fixed": ["0", "1"]}
    assert found.paired == frozenset() and found.left_out == []


def test_paired_true_without_common_names_is_refused() -> None:
    for fixed in (runs("fixed", 2, 3), runs("fixed", 1, 2), runs("fixed", 1, 2, seeded=False)):
        with pytest.raises(RunError, match="fewer than two runs of the same name") as error:
            pair_runs([runs("original", 0, 1), fixed], paired=True)
        assert "paired=false" in error.value.hint


# --- samples ---


def test_everything_is_brought_together_by_sample() -> None:
    study = build_study(
        [arm("original", table("abacb"), table("aaaaa")), arm("fixed", table("bbbbb"))],
        fixes(s2="invalid", s3="b", elsewhere="invalid"),
    )
    assert list(study.samples) == ["s1", "s2", "s3", "s4", "s5"]
    assert study.given_labels().tolist() == ["a", "b", "a", "c", "b"]
    assert clean_names(study) == ["a", None, "b", "c", "b"]
    assert study.kept.tolist() == [True, False, True, True, True]
    assert named(study, "original") == [list("abacb"), list("aaaaa")]
    assert named(study, "fixed") == [list("bbbbb")]
    assert study.runs == {"original": ["seed=0", "seed=1"], "fixed": ["seed=0"]}
    assert len(set(study.labels)) == len(study.labels)


def test_rows_may_stand_in_any_order_in_every_run() -> None:
    tables = [table("abacb"), table("cabac"), table("bbcca")]
    straight = build_study([arm("original", *tables[:2]), arm("fixed", tables[2])], fixes(s4="a"))
    mixed = [one.sample(frac=1, random_state=i) for i, one in enumerate(tables)]
    assert any(list(one["sample_id"]) != list(GIVEN) for one in mixed)
    study = build_study([arm("original", *mixed[:2]), arm("fixed", mixed[2])], fixes(s4="a"))
    assert list(study.samples) == list(straight.samples)
    assert named(study, "original") == [list("abacb"), list("cabac")]
    assert named(study, "fixed") == [list("bbcca")]
    assert clean_names(study) == clean_names(straight) == ["a", "b", "a", "a", "b"]


def test_another_arm_may_lack_removed_samples() -> None:
    """MLfix's own files of the fixed arm hold no row of a sample that was taken out."""
    study = build_study(
        [arm("original", table()), arm("fixed", without(table("bbbbb"), "s2", "s4"), table("ccccc"))],
        fixes(s2="invalid", s4="invalid", s1="b"),
    )
    assert named(study, "fixed") == [["b", None, "b", None, "b"], list("ccccc")]
    assert study.kept.tolist() == [True, False, True, False, True]


def test_the_first_arm_may_not_lack_removed_samples() -> None:
    with pytest.raises(RunError, match=r"original seed=1 and original seed=0 .* 1 samples differ: s2"):
        build_study([arm("original", table(), without(table(), "s2")), arm("fixed", table())], fixes(s2="invalid"))


def test_a_sample_that_only_changed_its_label_may_not_be_missing() -> None:
    with pytest.raises(RunError, match=r"fixed seed=0 and original seed=0 .* 1 samples differ: s1"):
        build_study([arm("original", table()), arm("fixed", without(table(), "s1", "s2"))], fixes(s1="b", s2="invalid"))


def test_unknown_samples_are_named_even_beside_removed_ones() -> None:
    more = table("abacbaaaa", {**GIVEN, "x7": "a", "x8": "a", "x9": "b", "y1": "c"})
    told = r"fixed seed=0 and original seed=0 do not hold out the same samples .* 4 samples differ: x7, x8, x9 and 1 m"
    with pytest.raises(RunError, match=told):
        build_study([arm("original", table()), arm("fixed", without(more, "s2"))], fixes(s2="invalid"))


def test_other_given_labels_are_named() -> None:
    odd = table("abacb", {**GIVEN, "s3": "b", "s5": "c"})
    with pytest.raises(
        RunError, match=r"control seed=1 and original seed=0 .* 2 samples have a different given.* as s3"
    ):
        build_study([arm("original", table()), arm("fixed", table()), arm("control", table(), odd)], fixes())


def test_fixed_labels_in_place_of_the_given_ones_are_another_given_label() -> None:
    with pytest.raises(RunError, match=r"1 samples have a different given label, such as s1"):
        build_study([arm("original", table()), arm("fixed", table("abacb", {**GIVEN, "s1": "b"}))], fixes(s1="b"))


def test_an_arm_without_runs_is_named() -> None:
    with pytest.raises(RunError, match=r"the arm fixed has no runs(.|\n)*arm=fixed"):
        build_study([arm("original", table()), arm("fixed")], fixes())


def test_labels_that_only_the_fixes_or_only_predictions_know() -> None:
    odd = table()
    odd["pred"] = ["a", "nobody's", "zebra", "nobody's", "new"]
    study = build_study([arm("original", odd), arm("fixed", table("abacb"))], fixes(s2="new"))
    assert named(study, "original") == [["a", "nobody's", "zebra", "nobody's", "new"]]
    assert clean_names(study) == ["a", "new", "a", "c", "b"]
    assert study.given_labels().tolist() == ["a", "b", "a", "c", "b"]
    assert sorted(study.labels) == ["a", "b", "c", "new", "nobody's", "zebra"]
    assert (study.preds["original"] >= 0).all()
    wrong = (study.preds["original"][0] != study.clean).tolist()
    assert wrong == [False, True, True, True, True]


def test_strange_predictions_of_several_runs_keep_their_names() -> None:
    first, second = table(), table()
    first["pred"], second["pred"] = ["q", "a", "a", "a", "p"], ["p", "q", "o", "a", "a"]
    study = build_study([arm("original", first, second), arm("fixed", table("abacb"))], fixes(s4="p"))
    assert named(study, "original") == [["q", "a", "a", "a", "p"], ["p", "q", "o", "a", "a"]]
    assert clean_names(study)[3] == "p"
    assert len(set(study.labels)) == len(study.labels)


def test_a_label_called_invalid_by_a_model_is_a_wrong_prediction() -> None:
    odd = table()
    odd["pred"] = ["invalid"] * 5
    study = build_study([arm("original", odd), arm("fixed", table())], fixes(s2="invalid"))
    assert (study.preds["original"][0] != study.clean)[study.kept].all()


# --- groups ---


def test_without_groups_every_sample_stands_alone() -> None:
    study = build_study([arm("original", table()), arm("fixed", table())], fixes())
    assert sorted(study.groups) == [0, 1, 2, 3, 4] and not study.grouped


def test_groups_by_sample_in_any_order_with_missing_values() -> None:
    groups = pd.Series({"s5": "p", "elsewhere": "p", "s1": "p", "s3": None, "s4": np.nan}, dtype=object)
    study = build_study([arm("original", table()), arm("fixed", table())], fixes(), groups)
    codes = dict(zip(study.samples, study.groups, strict=True))
    assert codes["s1"] == codes["s5"]
    assert len({codes[name] for name in ("s1", "s2", "s3", "s4")}) == 4, "missing values and samples stand alone"
    assert sorted(set(study.groups)) == [0, 1, 2, 3] and study.grouped


def test_groups_of_one_sample_each_are_no_groups() -> None:
    groups = pd.Series({name: f"photo {name}" for name in GIVEN}, dtype=object)
    assert not build_study([arm("original", table()), arm("fixed", table())], fixes(), groups).grouped


def test_groups_may_be_numbers() -> None:
    groups = pd.Series([7, 7, 8, 8, 7], index=list(GIVEN))
    study = build_study([arm("original", table()), arm("fixed", table())], fixes(), groups)
    assert study.groups.tolist() == [0, 0, 1, 1, 0] and study.grouped


def test_a_small_control_arm_does_not_cost_the_main_comparison_its_runs() -> None:
    sizes = (("original", 20), ("fixed", 20), ("control", 2))
    found = pair_runs([ArmRuns(n, {f"seed={i}": pd.DataFrame() for i in range(k)}) for n, k in sizes])
    assert [len(arm.predictions) for arm in found.arms] == [20, 20, 2]
    assert found.paired == {"original", "fixed"}
