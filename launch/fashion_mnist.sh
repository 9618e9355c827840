#!/usr/bin/env bash
# Train on Fashion-MNIST with whatever this machine has, draw 1,000 images, score them.
#
#   bash launch/fashion_mnist.sh [--dry_run] [--source=FOLDER] [--variant=uvit] [FLAGS]
#
# --source: the four IDX files. Without it, those of Debian's and Ubuntu's package
# dataset-fashion-mnist, which is installed if it is missing (31 MB; by root, or by sudo
# that asks for no password). --variant: one of configs/fashion_mnist.py, the small one
# on a CPU. Further flags, such as --config.training.num_steps=100, are for training.
#
# DEVICE: gpu, tpu or cpu; found out if not set. DATA_DIR: where the prepared images are;
# data by default. A second call goes on where the first stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
take_arguments "$@"
cd "$ROOT"

find_device() {
  if command -v nvidia-smi > /dev/null && nvidia-smi --list-gpus > /dev/null 2>&1; then
    echo gpu
  elif [[ -e /dev/accel0 || -d /dev/vfio/0 ]]; then
    echo tpu
  else
    echo cpu
  fi
}

device="${DEVICE:-$(find_device)}"
images=""
variant=parallel
flags=()
for argument in "${ARGUMENTS[@]}"; do
  case "$argument" in
    --source=*) images="${argument#*=}" ;;
    --variant=*) variant="${argument#*=}" ;;
    *) flags+=("$argument") ;;
  esac
done

case "$device" in
  cpu)
    [[ "$variant" == small ]] || variant="${variant%:small}:small"
    export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
    keep_memory
    ;;
  gpu) export DIG_JAX_EXTRAS=cuda ;;
  tpu) export DIG_JAX_EXTRAS=tpu ;;
  *) refuse "DEVICE must be gpu, tpu or cpu, got $device." ;;
esac
[[ "$DRY_RUN" == 1 ]] || make_environment

data="${DATA_DIR:-data}"
prepare_fashion_mnist "$data" "$images"

workdir="runs/fashion_mnist_${variant//:/_}"
begun=$SECONDS
start "$PYTHON" -m dig_jax.main "--config=configs/fashion_mnist.py:$variant" \
  "--config.data.data_dir=$data" "--workdir=$workdir" "${flags[@]}"
start "$PYTHON" -m dig_jax.main "--workdir=$workdir" --mode=sample
start "$PYTHON" -m dig_jax.main "--workdir=$workdir" --mode=evaluate
[[ "$DRY_RUN" == 1 ]] && exit
echo
echo "Trained, drew and scored on the $device in $((SECONDS - begun)) s. Look at"
echo "  $data/dig_fashion_mnist/1.0.0/contact_sheet.png    real images"
echo "  $workdir/samples.png    new ones, a row for each class"
echo "  $workdir/samples/       how they came about"
echo "  $workdir/loss.png, scores.png, graph.png"
echo "  $workdir/eval/          scores with all that they depend on"
