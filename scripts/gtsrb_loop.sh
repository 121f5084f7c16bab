#!/usr/bin/env bash
# The whole loop on real images: GTSRB with 5% of its speed-limit labels planted wrong by confusion; tracks kept together;
# audit by three folds, a simulated reviewer, then original, fixed and control arms with 8 seeds each, and one short
# ResNet50 run. Started again it continues where it stopped. Some 20 minutes on 2 cores that compute in bfloat16.
#
#   scripts/gtsrb_loop.sh <folder of gtsrb class folders> <work folder>
set -euo pipefail
data=$(realpath "${1:?pass the folder of class folders}")
work=${2:?pass a work folder}
here=$(cd "$(dirname "$0")" && pwd)
mlfix=${MLFIX:-mlfix} python=${PYTHON:-python}
mkdir -p "$work"
cd "$work"

[ -e planted.csv ] || "$python" "$here/plant_errors.py" "$data" planted.csv --labels '^speed-limit' --group '(.+)_\d+\.jpg'
settings=(data=table data.file=planted.csv model=small loader.batch_size=64 recipe.epochs=3)

"$mlfix" train -m "${settings[@]}" name=gtsrb-audit sweep=out_of_fold split.folds=3
"$mlfix" audit runs=outputs/gtsrb-audit out=audit logger=none
"$python" "$here/simulate_review.py" audit/ranking.csv planted.csv fixes.csv --budget 1500
"$mlfix" train -m "${settings[@]}" name=gtsrb fixes.path=fixes.csv sweep=before_after 'seed=range(0,8)' jobs=2
"$mlfix" compare original=outputs/gtsrb/original fixed=outputs/gtsrb/fixed control=outputs/gtsrb/control \
  fixes.path=fixes.csv slices.speed=^speed out=evidence
"$mlfix" train data=table data.file=planted.csv model.pretrained=false recipe=scratch recipe.epochs=1 pixels.size=32 \
  name=gtsrb-resnet50 trainer.limit_train_batches=60
