# shellcheck shell=bash
# Sourced by the scripts that start runs: --dry_run, and the settings that they need.
#
# DRY_RUN=1, or --dry_run among the arguments, prints what would start, and starts
# nothing.

# shellcheck disable=SC2034 # used by those scripts
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DRY_RUN="${DRY_RUN:-0}"
ARGUMENTS=()

# Put "$@" without --dry_run into ARGUMENTS.
take_arguments() {
  local argument
  for argument in "$@"; do
    if [[ "$argument" == --dry_run ]]; then
      DRY_RUN=1
    else
      ARGUMENTS+=("$argument")
    fi
  done
}

refuse() {
  echo "error: $*" >&2
  exit 78
}

# Refuse to go on unless each of these variables is set.
need() {
  local name
  for name in "$@"; do
    [[ -n "${!name:-}" ]] || refuse "$name is needed: see the head of $0."
  done
}

# Refuse to go on unless ARGUMENTS name a workdir that every machine sees.
need_shared_workdir() {
  local argument
  for argument in "${ARGUMENTS[@]}"; do
    case "$argument" in
      --workdir=gs://* | --workdir=/*) return ;;
    esac
  done
  refuse "--workdir=gs://BUCKET/RUN is needed, or an absolute path on storage that" \
    "every machine mounts: got ${ARGUMENTS[*]:-no arguments}."
}

# A command as it would be typed.
quoted() {
  local words
  printf -v words '%q ' "$@"
  echo "${words% }"
}

# Become a command, so that signals reach it, or print it and end.
start_and_end() {
  if [[ "$DRY_RUN" == 1 ]]; then
    quoted "$@"
    exit
  fi
  exec "$@"
}

# Run a command, or print it.
start() {
  if [[ "$DRY_RUN" == 1 ]]; then
    quoted "$@"
  else
    "$@"
  fi
}

# Prepare Fashion-MNIST into the folder $1, unless it is there: from the folder $2 with
# its four IDX files, or, if that is empty, from Debian's package of it.
prepare_fashion_mnist() {
  local data="$1" images="$2" packaged=/usr/share/datasets/fashion-mnist
  [[ -d "$data/dig_fashion_mnist/1.0.0" ]] && return
  if [[ -z "$images" ]]; then
    [[ -d "$packaged" ]] || install_fashion_mnist
    images="$packaged"
  fi
  start "$PYTHON" -m dig_jax.prepare idx --name=fashion_mnist "--source=$images" \
    "--data_dir=$data"
}

install_fashion_mnist() {
  command -v apt-get > /dev/null ||
    refuse "--source=FOLDER is needed, with Fashion-MNIST's four IDX files: this" \
      "system has no apt-get to install dataset-fashion-mnist with."
  local as_root=()
  [[ "$EUID" == 0 ]] || as_root=(sudo --non-interactive)
  start "${as_root[@]}" apt-get update
  start "${as_root[@]}" apt-get install --yes dataset-fashion-mnist
}
