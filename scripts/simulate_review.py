"""Simulates a reviewer with a budget, who reviews the top of a ranking and marks the wrong labels as invalid.

    python scripts/simulate_review.py audit/ranking.csv planted.csv fixes.csv --budget 1500

The truth comes from the column true_label of a table by scripts/plant_errors.py.
"""

from __future__ import annotations

import argparse

import pandas as pd

from mlfix_train.commands.demo import simulate_review
from mlfix_train.data.fixes.table import write_fixes
from mlfix_train.data.label_noise import TRUE_LABEL
from mlfix_train.data.readers.table import read_table

COLUMNS = {"sample_id": "sample_id", "path": "path", "label": "label", "group": "group", "split": "split"}


def main() -> None:
    """Reads ranking and truth, writes the fixes and prints how many errors were found."""
    parser = argparse.ArgumentParser(description="Marks the planted errors at the top of a ranking as invalid.")
    parser.add_argument("ranking", help="ranking.csv of mlfix audit")
    parser.add_argument("table", help="table with the column true_label")
    parser.add_argument("out", help="fixes file to write")
    parser.add_argument("--budget", type=int, default=1000, help="samples reviewed")
    options = parser.parse_args()
    table = read_table(options.table, columns=COLUMNS)
    ranking = pd.read_csv(options.ranking, keep_default_na=False)
    fixes, found = simulate_review(ranking, table, options.budget)
    write_fixes(fixes, options.out)
    planted = int((table["label"] != table[TRUE_LABEL]).sum())
    print(
        f"{len(found):,} of {planted:,} wrong labels found among the first {options.budget:,} of {len(ranking):,}: "
        f"{options.out}"
    )


if __name__ == "__main__":
    main()
