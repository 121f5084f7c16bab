r"""Plants wrong labels in a data set and writes it as a table, for benchmarks: known errors that an audit should find.

    python scripts/plant_errors.py gtsrb planted.csv --labels '^speed-limit' --fraction 0.05 --group '(.+)_\d+'

The table has the columns sample_id, path, label (with the errors), group, split and true_label; train on it by
`mlfix train data=table data.file=planted.csv`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions, plant_uniform
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.samples import label_list, write_table


def main() -> None:
    """Reads the folder, plants the errors and writes the table."""
    parser = argparse.ArgumentParser(description="Plants wrong labels in a folder of class folders.")
    parser.add_argument("root", help="folder of class folders")
    parser.add_argument("out", help="table to write, .csv or .parquet")
    parser.add_argument("--fraction", type=float, default=0.05, help="share of the samples of these labels to mislabel")
    parser.add_argument("--labels", default=".", help="regular expression of the labels to confuse with one another")
    parser.add_argument("--group", default=None, help="regular expression on the sample_id that names photo or track")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--uniform", action="store_true", help="use any other label instead of the likeliest confusions"
    )
    options = parser.parse_args()
    table = read_folder(options.root, options.group)
    if options.uniform:
        planted = plant_uniform(table, options.fraction, options.seed)
    else:
        names = [name for name in label_list(table) if re.search(options.labels, name)]
        planted = plant_confusions(table, options.fraction, confusions_among(names), options.seed)
    write_table(planted, Path(options.out))
    wrong = int((planted["label"] != planted[TRUE_LABEL]).sum())
    print(f"{wrong:,} of {len(planted):,} labels are wrong now: {options.out}")


if __name__ == "__main__":
    main()
