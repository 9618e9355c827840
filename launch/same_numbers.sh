#!/usr/bin/env bash
# Does this installation compute right? Draw and score the models of the package again.
#
#   bash launch/same_numbers.sh [--dry_run] [--source=FOLDER] [--names=digits,...]
#
# Prints each score beside the recorded one, with the deviation that seeds have; the exit
# code is 1 if one is further away than three of them. --names: these models alone.
#
# The digits need no files. A model of Fashion-MNIST needs it: --source has its four IDX
# files, or they are those of Debian's and Ubuntu's package dataset-fashion-mnist, which
# is installed if it is missing (31 MB). DATA_DIR: where prepared images are, or come to;
# data by default.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
take_arguments "$@"
cd "$ROOT"

images=""
names=""
for argument in "${ARGUMENTS[@]}"; do
  case "$argument" in
    --source=*) images="${argument#*=}" ;;
    --names=*) names="${argument#*=}" ;;
    *) refuse "--source=FOLDER and --names=NAME,... are known, got $argument." ;;
  esac
done
[[ "$DRY_RUN" == 1 ]] || make_environment

data="${DATA_DIR:-data}"
check=(-m dig_jax.pretrained.check "--data_dir=$data")
[[ -z "$names" ]] || check+=("--names=$names")
shipped=dig_jax/pretrained/fashion_mnist/manifest.json
if [[ ",$names," == *,fashion_mnist,* || (-z "$names" && -f "$shipped") ]]; then
  prepare_fashion_mnist "$data" "$images"
fi
start "$PYTHON" "${check[@]}"
