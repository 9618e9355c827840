#!/usr/bin/env bash
# Train DiG on handwritten digits on this machine's CPU, draw 1,000 new ones, score them.
#
#   bash launch/quickstart.sh [--dry_run] [FLAGS]
#
# Flags, such as --config.training.num_steps=100, are for the training.
# A second call goes on where the first stopped. Everything lands in runs/digits.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
take_arguments "$@"
[[ "$DRY_RUN" == 1 ]] || make_environment
keep_memory
cd "$ROOT"

workdir=runs/digits
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
begun=$SECONDS
start "$PYTHON" -m dig_jax.main --config=configs/digits.py "--workdir=$workdir" \
  ${ARGUMENTS[@]+"${ARGUMENTS[@]}"} # bash 3 calls an empty array unbound
start "$PYTHON" -m dig_jax.main "--workdir=$workdir" --mode=sample
start "$PYTHON" -m dig_jax.main "--workdir=$workdir" --mode=evaluate
[[ "$DRY_RUN" == 1 ]] && exit
echo
echo "Trained, drew and scored in $((SECONDS - begun)) s. Look at"
echo "  $workdir/samples.png    new digits, a row for each class"
echo "  $workdir/samples.npz    1,000 of them, with labels"
echo "  $workdir/samples/       how they came about"
echo "  $workdir/loss.png       loss, gradient norm, feature diversity"
echo "  $workdir/scores.png     scores along training"
echo "  $workdir/eval/          scores with all that they depend on"
echo "  $workdir/graph.png      the graph of an image"
echo "  $workdir/checkpoints/   parameters: dig_jax.load(\"$workdir\").sample(16, labels=3)"
