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
