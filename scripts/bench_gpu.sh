#!/usr/bin/env bash
# Everything worth measuring on a GPU, in one call of at most 8 minutes: prints one table, and leaves it in $OUT/bench_gpu.md.
#
#   scripts/bench_gpu.sh            on a machine with a GPU
#   scripts/bench_gpu.sh --toy      all of it in small on a CPU, to see that it runs
#
# Needs an environment in which mlfix-train runs. Where hydra-core and omegaconf are not installed and nothing can be fetched,
# put their wheels into .wheels first (pip download -d .wheels hydra-core omegaconf lpips wandb) and take that folder along.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import hydra, omegaconf' 2>/dev/null; then
  if [ ! -d .wheels ]; then
    echo "hydra-core or omegaconf is missing: pip install them, or put their wheels into .wheels" >&2
    exit 2
  fi
  "$python" -m pip install --quiet --no-index --find-links .wheels hydra-core omegaconf
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} TORCHINDUCTOR_FX_GRAPH_CACHE=1
exec "$python" scripts/bench_gpu.py --out "${OUT:-.bench}" "$@"
