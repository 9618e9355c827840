#!/usr/bin/env bash
# Run the tests, a process for each core (at most 8). Arguments go to pytest.
#
#   bash launch/test.sh [pytest arguments]
#   bash launch/test.sh --reliability [pytest arguments]
#   bash launch/test.sh --gpu [pytest arguments]
#
# The second runs what takes long instead, one after the other: kills, full disks,
# damaged files, many steps. It ends with a table of figures (docs/reliability.md).
# The third runs the tests that need an NVIDIA GPU, and skips them where there is none;
# DIG_JAX_TEST_DEVICE=cpu tries them on the CPU.
#
# PYTHON: an interpreter whose packages are taken as they are; nothing is installed.
set -euo pipefail
given="${PYTHON:-}"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
extras="test"
[[ "${1:-}" != --gpu ]] || extras="test,cuda"
if [[ -n "$given" ]]; then
  PYTHON="$given"
  export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
else
  DIG_JAX_EXTRAS="$extras" make_environment
fi
cd "$ROOT"
if [[ "${1:-}" == --reliability ]]; then
  exec "$PYTHON" -m pytest -m reliability tests/reliability "${@:2}"
fi
if [[ "${1:-}" == --gpu ]]; then
  export DIG_JAX_TEST_DEVICE="${DIG_JAX_TEST_DEVICE:-cuda}"
  exec "$PYTHON" -m pytest -m gpu -rs tests/gpu "${@:2}"
fi
# Whole files, in the order of tests/slowest_files.py: by the number of their tests,
# files with few that start many processes would come last, and one process work on them
# while the others wait. What was compiled is kept in .pytest_cache (tests/program_cache.py).
exec "$PYTHON" -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile \
  --no-loadscope-reorder "$@"
