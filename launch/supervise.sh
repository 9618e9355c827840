#!/usr/bin/env bash
# Run a command, and again while it ends with 75 (watchdog) or 76 (peer failure).
#
#   bash launch/supervise.sh COMMAND [ARGUMENTS]
#
# Any other code ends it, 77 (not finite) and 78 (bad input) too: they would come again.
# SIGTERM and Ctrl-C go on to the command, which saves and ends with 0. Then this ends
# with 143 or 130, so that a scheduler sees a run that was stopped, not one that is done.
#
# MAX_RESTARTS: 100 by default. RESTART_DELAY: seconds before each, 10 by default.
#
# gpu.sh, slurm.sh and the Docker image all start runs by this script: what is to be set
# for a kind of accelerator, such as XLA_FLAGS, is to be set here. So far nothing is: no
# flag of `benchmarks/gpu.py --parts=xla_flags` is known to help.
set -uo pipefail
set -m # the command is a group of its own: a terminal's Ctrl-C comes to it once, by here

if (($# == 0)); then
  echo "error: a command is needed: bash launch/supervise.sh COMMAND." >&2
  exit 78
fi
asked=0
passed_on=0
interrupted=0
child=0

stop() { # SIGNAL CODE
  received=$1
  asked=$2
  interrupted=1
  if ((child)); then
    passed_on=1
    kill -s "$received" "$child" 2>/dev/null
  fi
}
trap 'stop TERM 143' TERM
trap 'stop INT 130' INT

# Set `code` to the child's: a signal ends `wait`, but not the child.
wait_for_child() {
  local again
  if ((asked && !passed_on)); then # it came before there was a child
    kill -s "$received" "$child" 2>/dev/null
  fi
  wait "$child"
  code=$?
  while ((interrupted)); do
    interrupted=0
    wait "$child"
    again=$?
    ((again == 127)) || code=$again # 127: it had ended before
  done
}

for ((restart = 0; ; restart++)); do
  "$@" &
  child=$!
  wait_for_child
  child=0
  if ((asked)); then
    exit "$((code == 0 ? asked : code))"
  fi
  if ((code != 75 && code != 76)) || ((restart >= ${MAX_RESTARTS:-100})); then
    exit "$code"
  fi
  echo "supervise: exit code $code, restart $((restart + 1))" >&2
  sleep "${RESTART_DELAY:-10}" &
  child=$!
  wait_for_child
  child=0
  ((asked == 0)) || exit "$asked"
done
