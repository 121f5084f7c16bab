#!/usr/bin/env bash
# A before-and-after sweep on SLURM: one job a run, submitted by Hydra's submitit launcher (pip install 'mlfix-train[slurm]').
# Run it on a login node, on a file system that the nodes share; it waits, and prints the table of states at the end. Started
# again it skips what is finished and goes on with the rest. Further arguments are keys of `mlfix train`.
#
#   PARTITION=gpu scripts/slurm_sweep.sh data.root=/data/signs fixes.path=fixes.csv name=signs
set -euo pipefail
exec "${MLFIX:-mlfix}" train -m sweep=before_after hydra/launcher=submitit_slurm \
  hydra.launcher.partition="${PARTITION:-null}" hydra.launcher.timeout_min="${MINUTES:-240}" \
  hydra.launcher.gpus_per_node=1 hydra.launcher.cpus_per_task="${CPUS:-8}" hydra.launcher.mem_gb="${MEMORY_GB:-32}" \
  hydra.launcher.array_parallelism="${AT_ONCE:-8}" "$@"
