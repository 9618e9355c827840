#!/usr/bin/env bash
# Train on all GPUs of this machine.
#
#   bash launch/gpu.sh [--dry_run] --config=configs/cifar10.py \
#     --config.data.data_dir=data --workdir=runs/cifar10
#
# The data are prepared before (python -m dig_jax.prepare --help). Whether configuration and
# data can be read: the same arguments to `python -m dig_jax.main --dry_run`.
#
# One process drives all GPUs. It is started again after exit codes 75 and 76.
# PROCESSES: with 2 or more, as many processes with one GPU each, which meet at
# 127.0.0.1:PORT; nothing outside this machine can reach that. PORT: 12355 by default.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
take_arguments "$@"
cd "$ROOT"
[[ "$DRY_RUN" == 1 ]] || DIG_JAX_EXTRAS=cuda,gcs make_environment

run=(bash launch/supervise.sh "$PYTHON" -m dig_jax.main)
processes="${PROCESSES:-1}"
[[ "$processes" =~ ^[1-9][0-9]*$ ]] || refuse "PROCESSES must be 1 or more, got $processes."
if ((processes == 1)); then
  start_and_end "${run[@]}" --distributed=off "${ARGUMENTS[@]}"
fi

children=()
trap 'kill -TERM "${children[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < processes; i++)); do
  one=(env "CUDA_VISIBLE_DEVICES=$i" "${run[@]}"
    "--coordinator_address=127.0.0.1:${PORT:-12355}" "--num_processes=$processes"
    "--process_id=$i" "${ARGUMENTS[@]}")
  if [[ "$DRY_RUN" == 1 ]]; then
    start "${one[@]}"
  else
    "${one[@]}" &
    children+=("$!")
  fi
done
code=0
for child in "${children[@]}"; do
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || code=$?
  done
done
exit "$code"
