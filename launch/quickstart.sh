#!/usr/bin/env bash
# Train DiG on handwritten digits on this machine's CPU, draw 1,000 new ones, score them.
#
#   bash launch/quickstart.sh
#
# A second call goes on where the first stopped. Everything lands in runs/digits.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
make_environment
keep_memory
cd "$ROOT"

workdir=runs/digits
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
start=$SECONDS
"$PYTHON" -m dig_jax.main --config=configs/digits.py --workdir="$workdir" "$@"
"$PYTHON" -m dig_jax.main --workdir="$workdir" --mode=sample
"$PYTHON" -m dig_jax.main --workdir="$workdir" --mode=evaluate
echo
echo "Trained, drew and scored in $((SECONDS - start)) s. Look at"
echo "  $workdir/samples.png    new digits, a row for each class"
echo "  $workdir/samples.npz    1,000 of them, with labels"
echo "  $workdir/samples/       how they came about"
echo "  $workdir/loss.png       loss, gradient norm, feature diversity"
echo "  $workdir/scores.png     scores along training"
echo "  $workdir/eval/          scores with all that they depend on"
echo "  $workdir/graph.png      the graph of an image"
echo "  $workdir/checkpoints/   parameters: dig_jax.load(\"$workdir\").sample(16, labels=3)"
