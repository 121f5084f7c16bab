#!/usr/bin/env bash
# Reproduces the published table from the published predictions: unpacks them, compares the arms, prints our numbers
# next to the published ones, and fails if one differs. Needs the archive of MLfix's 40 prediction files.
#
#   scripts/reproduce_published.sh <mtsd-published.tar.xz> [work folder]
set -euo pipefail
archive=$(realpath "${1:?pass the archive of the published predictions}")
work=${2:-$(mktemp -d)}
here=$(cd "$(dirname "$0")" && pwd)
mlfix=${MLFIX:-mlfix} python=${PYTHON:-python}
mkdir -p "$work"
cd "$work"
tar xJf "$archive"
root=$(dirname "$(find . -name invalid-speed-limits.csv | head -1)")

SECONDS=0
"$mlfix" compare original="$root/predictions/original-predictions-*.csv" fixed="$root/predictions/fixed-predictions-*.csv" \
  fixes.path="$root/invalid-speed-limits.csv" slices.speed=speed primary=speed \
  name=mtsd-published logger=none out=published
echo "took       ${SECONDS} s with 10,000 resamples"
"$python" "$here/check_published.py" published/summary.json
echo "open       $PWD/published/compare.html"
