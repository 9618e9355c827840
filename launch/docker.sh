#!/usr/bin/env bash
# Build a Docker image for CUDA, TPU or CPU.
#
#   bash launch/docker.sh [--dry_run] cuda|tpu|cpu IMAGE
#   docker run --gpus=all --shm-size=8g -v "$PWD/runs:/dig_jax/runs" IMAGE \
#     python -m dig_jax.main --config=configs/digits.py --workdir=runs/digits
#
# PUSH=1 pushes it, too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
take_arguments "$@"
kind="${ARGUMENTS[0]:-}"
image="${ARGUMENTS[1]:-}"
case "$kind" in
  cuda | tpu) extras="$kind,gcs" ;; # gcs: workdirs in buckets
  cpu) extras="gcs" ;;
  *) refuse "one of cuda, tpu, cpu is needed, got '$kind'." ;;
esac
[[ -n "$image" ]] || refuse "a name for the image is needed: $0 $kind IMAGE."
start docker build --platform=linux/amd64 "--build-arg=EXTRAS=$extras" \
  "--file=$ROOT/launch/Dockerfile" "--tag=$image" "$ROOT"
[[ "${PUSH:-0}" != 1 ]] || start docker push "$image"
