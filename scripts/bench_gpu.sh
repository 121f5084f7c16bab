#!/usr/bin/env bash
# Everything worth measuring on a GPU, in one call of at most 8 minutes: prints one table, and leaves it in $OUT/bench_gpu.md.
#
#   scripts/bench_gpu.sh            on a machine with a GPU
#   scripts/bench_gpu.sh --toy      all of it in small on a CPU, to see that it runs
#
# Needs an environment in which mlfix-train runs. Where some of hydra-core, omegaconf, loky and lpips are missing and nothing
# can be fetched, put their wheels into .wheels first, and take that folder along:
#   pip wheel --no-deps -w .wheels hydra-core omegaconf antlr4-python3-runtime==4.9.3 loky lpips
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import hydra, loky, lpips, omegaconf' 2>/dev/null; then
  if [ ! -d .wheels ]; then
    echo "hydra-core, omegaconf, loky or lpips is missing: pip install them, or put their wheels into .wheels" >&2
    exit 2
  fi
  "$python" -m pip install --quiet --no-index --no-deps --find-links .wheels hydra-core omegaconf antlr4-python3-runtime loky lpips
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} TORCHINDUCTOR_FX_GRAPH_CACHE=1
exec "$python" scripts/bench_gpu.py --out "${OUT:-.bench}" "$@"
