#!/usr/bin/env bash
# The published experiment on the Mapillary Traffic Sign Dataset, from the downloaded data to the evidence:
#
#   scripts/reproduce_mtsd.sh <MTSD> <invalid-speed-limits.csv> [work folder]
#
# crops (named as the published ones are), then 20 runs each of the arms original, fixed and control with the published
# recipe and its split by crop, the same with all crops of a photo on one side, five runs that hold out a fifth each for an
# audit of every crop, and a comparison of each. Says first what it will take in time, memory and disk. Started again it goes
# on where it was. Without a fixes file of your own, pass the word "none": it then stops after the audit, for you to mark, and
# takes review/fixes.csv of the work folder the next time.
#
#   SEEDS=20 FOLDS=5 VARIANTS="mtsd_speed_limits mtsd_by_photo" ARMS=original,fixed,control   less of it for a first look
#   JOBS=gpus        one run on each GPU; a number: so many at a time
#   KEYS="model.pretrained=false recipe=scratch"        more keys of `mlfix train`, for all runs
#   ESTIMATE=only    stops after saying what it will take; ESTIMATE=none leaves that out
set -euo pipefail
data=$(realpath "${1:?pass the folder of MTSD}")
fixes=${2:?pass the fixes file, such as the published invalid-speed-limits.csv, or none}
if [ "$fixes" != none ]; then
  [ -f "$fixes" ] || { echo "the fixes file $fixes does not exist; pass none to make one yourself" >&2; exit 2; }
  fixes=$(realpath "$fixes")
fi
[ -d "$data" ] || { echo "the folder $data does not exist" >&2; exit 2; }
work=${3:-mtsd}
seeds=${SEEDS:-20} folds=${FOLDS:-5} arms=${ARMS:-original,fixed,control} jobs=${JOBS:-1}
variants=${VARIANTS:-mtsd_speed_limits mtsd_by_photo}
read -r -a keys <<< "${KEYS:-}"
here=$(cd "$(dirname "$0")" && pwd)
mlfix=${MLFIX:-mlfix} python=${PYTHON:-python}
mkdir -p "$work"
cd "$work"

if [ "${ESTIMATE:-}" != none ] && [ ! -e estimate.txt ]; then
  count=$(($(wc -w <<< "$variants") * seeds * $(tr ',' '\n' <<< "$arms" | wc -l) + folds))
  "$python" "$here/estimate_mtsd.py" "$data" --runs "$count" ${keys[@]+"${keys[@]}"} | tee estimate.part
  mv estimate.part estimate.txt
  [ "${ESTIMATE:-}" != only ] || exit 0
fi

"$mlfix" crop data=mtsd data.root="$data" out=crops ids=positions

"$mlfix" train -m experiment=mtsd_by_photo data.root=crops name=mtsd-audit sweep=out_of_fold split.folds="$folds" \
  "split.train_only=[]" jobs="$jobs" ${keys[@]+"${keys[@]}"}
"$mlfix" audit runs=outputs/mtsd-audit out=audit slices.speed=speed name=mtsd

if [ "$fixes" = none ]; then
  fixes=$PWD/review/fixes.csv
  if [ ! -e "$fixes" ]; then
    echo "mark wrong labels with   cd $PWD && $mlfix review audit=audit"
    echo "and run this command again"
    exit 0
  fi
fi

for variant in $variants; do
  name=${variant//_/-}
  "$mlfix" train -m experiment="$variant" data.root=crops name="$name" fixes.path="$fixes" sweep=before_after \
    "seed=range(0,$seeds)" arm="$arms" jobs="$jobs" ${keys[@]+"${keys[@]}"}
  control=()
  [[ ",$arms," != *,control,* ]] || control=(control="outputs/$name/control")
  "$mlfix" compare original="outputs/$name/original" fixed="outputs/$name/fixed" ${control[@]+"${control[@]}"} \
    fixes.path="$fixes" slices.speed=speed name="$name" out="evidence-$name"
done
echo "look at    $(for variant in $variants; do printf '%s ' "$PWD/evidence-${variant//_/-}/compare.html"; done)"
