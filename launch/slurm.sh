#!/usr/bin/env bash
# Train on a SLURM cluster, a task for each GPU: jax gives each task one.
#
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 --time=24:00:00 \
#     launch/slurm.sh --config=configs/imagenet64.py --config.data.data_dir=/shared/data \
#     --workdir=/shared/runs/imagenet64
#   bash launch/slurm.sh --dry_run --config=... --workdir=...   # what a job would start
#
# The data are prepared before, where every node sees them. Before the job is submitted, see
# whether configuration and data can be read: `.venv/bin/python -m dig_jax.main --dry_run`
# with the same arguments.
#
# Submit from the repository, on a file system that every node sees, with .venv made:
#   DIG_JAX_EXTRAS=cuda,gcs bash -c 'source launch/environment.sh && make_environment'
# After exit codes 75 and 76 the tasks are started again in the same allocation. Two
# minutes before the time is up they save, and the job goes back into the queue.
#
# MAX_RESTARTS: in one allocation, 100 by default.
#SBATCH --job-name=dig_jax
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
set -uo pipefail
# sbatch runs a copy of this file from elsewhere.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}" || exit 78
if [[ ! -f launch/common.sh ]]; then
  echo "error: submit from the repository, got $PWD." >&2
  exit 78
fi
# shellcheck source=launch/common.sh
source launch/common.sh
take_arguments "$@"
need_shared_workdir

# Each task ends by itself, with 76 where another one failed; srun returns the greatest.
tasks=(srun --kill-on-bad-exit=0 "$ROOT/.venv/bin/python" -m dig_jax.main
  --distributed=auto "${ARGUMENTS[@]}")
supervised=(bash "$ROOT/launch/supervise.sh" "${tasks[@]}")
if [[ "$DRY_RUN" == 1 ]]; then
  start "${supervised[@]}"
  exit
fi
"${supervised[@]}" &
child=$!
requeue=0
trap 'requeue=1; kill -TERM "$child"' USR1 # the time is nearly up
trap 'kill -TERM "$child"' TERM
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # the signal ended `wait`, not the tasks
  wait "$child"
  code=$?
done
if ((requeue && code == 143)); then # saved, not done
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
