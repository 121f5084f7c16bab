#!/usr/bin/env bash
# Does the fast path learn the same as the plain one? GTSRB, ResNet18 at 40 px, the published recipe, 5 seeds each:
#
#   fast   bfloat16, channels_last, small convolutions as matrix products, images held in memory
#   plain  float32, none of it
#
# Both start from the same weights (eight epochs from random ones, for no hub can be had) and hold out the same tracks.
# Prints the held-out errors, their means and spread. Started again it continues where it stopped.
#
#   scripts/same_learning.sh <folder of gtsrb class folders> <work folder> [samples]
set -euo pipefail
data=$(realpath "${1:?pass the folder of class folders}")
work=${2:?pass a work folder}
samples=${3:-8000}
mlfix=${MLFIX:-mlfix} python=${PYTHON:-python}
mkdir -p "$work"
cd "$work"
[ -e samples.csv ] || "$python" - "$data" "$samples" <<'PY'
import sys
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.samples import write_table
table = read_folder(sys.argv[1], r"(.+)_\d+\.jpg")
tracks = table["group"].drop_duplicates().sample(frac=1, random_state=0)
sizes = table["group"].value_counts()[tracks].cumsum()
write_table(table[table["group"].isin(tracks[(sizes <= int(sys.argv[2])).to_numpy()])], "samples.csv")
PY
common=(data=table data.file=samples.csv model=resnet18 model.pretrained=false logger=none audit.n_panels=0 report=line)
"$mlfix" train "${common[@]}" recipe=scratch recipe.epochs=8 name=start
recipe=(recipe=finetune recipe.epochs=3 model.weights=outputs/start/original/seed=0/checkpoints/model.ckpt
  trainer.check_val_every_n_epoch=4 "seed=range(0,5)")
"$mlfix" train -m "${common[@]}" "${recipe[@]}" name=fast loader.cache_on_device=true
"$mlfix" train -m "${common[@]}" "${recipe[@]}" name=plain loader.cache_on_device=false model.fast_convs=false \
  trainer.precision=32-true model.channels_last=false model.compile=false
"$python" - <<'PY'
import json
from pathlib import Path
import numpy as np
from scipy.stats import ttest_ind
errors = {}
for name in ("plain", "fast"):
    runs = [json.loads(path.read_text()) for path in sorted(Path(f"outputs/{name}/original").glob("seed=*/run.json"))]
    errors[name] = np.array([run["held_out_error"] for run in runs])
    print(f"{name:<6} held-out error {', '.join(f'{error:.2f}' for error in errors[name])} %: mean {errors[name].mean():.2f}, "
          f"standard deviation {errors[name].std(ddof=1):.2f}; {np.mean([run['timings']['fit_seconds'] for run in runs]):.0f} s a run")
gap = errors["fast"].mean() - errors["plain"].mean()
spread = np.sqrt(np.mean([values.var(ddof=1) for values in errors.values()]))
print(f"difference of the means {gap:+.2f} points, spread of the runs {spread:.2f}: "
      f"{'within' if abs(gap) <= spread else 'NOT within'} it (Welch p = {ttest_ind(*errors.values(), equal_var=False).pvalue:.2f})")
PY
