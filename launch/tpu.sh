#!/usr/bin/env bash
# Train on a TPU slice, from one host to a pod, through gcloud.
#
#   export TPU_NAME=dig ZONE=us-west4-a PROJECT=my-project ACCELERATOR=v5litepod-16
#   bash launch/tpu.sh create
#   bash launch/tpu.sh install      # this repository's HEAD, on every host
#   bash launch/tpu.sh train --config=configs/imagenet64.py \
#     --config.data.data_dir=gs://bucket/data --workdir=gs://bucket/run
#   bash launch/tpu.sh log          # follow the first host's
#   bash launch/tpu.sh stop         # save, and stop
#   bash launch/tpu.sh delete
#
# The data are prepared before, and lie in a bucket. Whether configuration and data can be
# read: the arguments of `train` to `python -m dig_jax.main --dry_run`.
#
# With --dry_run each prints its commands. Training goes on when this terminal is closed,
# and is started again on its host after exit codes 75 and 76.
#
# RUNTIME: the machines' image, v2-alpha-tpuv5-lite by default (v5p: v2-alpha-tpuv5,
# v6e: v2-alpha-tpuv6e, v4: tpu-ubuntu2204-base). SPOT=1: a slice that may be taken away.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
take_arguments "$@"
action="${ARGUMENTS[0]:-}"
ARGUMENTS=("${ARGUMENTS[@]:1}")
need TPU_NAME ZONE PROJECT
where=("--zone=$ZONE" "--project=$PROJECT")

on_hosts() { # WHICH COMMAND
  start gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${where[@]}" "--worker=$1" \
    "--command=$2"
}

case "$action" in
  create)
    need ACCELERATOR
    more=()
    [[ "${SPOT:-0}" != 1 ]] || more+=(--spot)
    start gcloud compute tpus tpu-vm create "$TPU_NAME" "${where[@]}" \
      "--accelerator-type=$ACCELERATOR" \
      "--version=${RUNTIME:-v2-alpha-tpuv5-lite}" "${more[@]}"
    ;;
  install)
    archive="${TMPDIR:-/tmp}/dig_jax.tar.gz"
    start git -C "$ROOT" archive --format=tar.gz "--output=$archive" HEAD
    start gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:dig_jax.tar.gz" \
      "${where[@]}" --worker=all
    # The images' own Python is 3.10.
    on_hosts all "set -e
sudo apt-get -qq update && sudo apt-get -qq install -y python3.11 python3.11-venv
mkdir -p dig_jax && tar -xzf dig_jax.tar.gz -C dig_jax && cd dig_jax
export PYTHON3=python3.11 DIG_JAX_EXTRAS=tpu,gcs
source launch/environment.sh && make_environment"
    ;;
  train)
    need_shared_workdir
    run="$(quoted bash launch/supervise.sh .venv/bin/python -m dig_jax.main \
      --distributed=auto "${ARGUMENTS[@]}")"
    on_hosts all "cd dig_jax && { nohup $run >> train.log 2>&1 < /dev/null & } &&
echo \$! > train.pid"
    ;;
  log) on_hosts 0 "tail -n 50 -F dig_jax/train.log" ;;
  stop) on_hosts all "xargs kill -TERM < dig_jax/train.pid" ;;
  delete) start gcloud compute tpus tpu-vm delete "$TPU_NAME" "${where[@]}" ;;
  *) refuse "one of create, install, train, log, stop, delete is needed, got '$action'." ;;
esac
