#!/usr/bin/env bash
# One run over the GPUs of several SLURM nodes by Lightning's DDP: trainer keys alone.
#
#   sbatch --nodes=2 scripts/slurm_ddp.sh data.root=/data/signs name=signs
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
set -euo pipefail
srun "${MLFIX:-mlfix}" train trainer=ddp trainer.num_nodes="$SLURM_JOB_NUM_NODES" \
  trainer.devices="$SLURM_NTASKS_PER_NODE" "$@"
