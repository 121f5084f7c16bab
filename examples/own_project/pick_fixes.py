"""Makes ``fixes.csv`` from the top of a ranking, in place of the person who would look at it on the review page.

``python pick_fixes.py audit/ranking.csv 60 fixes.csv`` looks at the 60 most suspicious pictures.
"""

from __future__ import annotations

import sys

import pandas as pd


def main(ranking: str, looked_at: str, out: str) -> None:
    """Writes a fix for every picture at the top whose label is wrong, and prints how many that were."""
    truth = pd.read_csv("truth.csv", index_col="sample_id")["label"]
    top = pd.read_csv(ranking).head(int(looked_at)).set_index("sample_id")
    wrong = top[top["given_label"] != truth.loc[top.index]]
    fixes = pd.DataFrame({"new_label": truth.loc[wrong.index], "old_label": wrong["given_label"]})
    fixes.to_csv(out)
    given = pd.read_csv("pictures/labels.tsv", sep="\t", names=["sample_id", "label"], index_col="sample_id")["label"]
    planted = int((given != truth.loc[given.index]).sum())
    print(f"{ranking}: {len(fixes)} of {planted} wrong labels are among the first {len(top)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
