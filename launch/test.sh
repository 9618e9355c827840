#!/usr/bin/env bash
# Run the tests, a process for each core (at most 8). Arguments go to pytest.
#
#   bash launch/test.sh [pytest arguments]
#   bash launch/test.sh --reliability [pytest arguments]
#
# The second runs what takes long instead, one after the other: kills, full disks,
# damaged files, many steps. It ends with a table of figures (docs/reliability.md).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck disable=SC2209 # the extra of that name, not the command
DIG_JAX_EXTRAS=test make_environment
cd "$ROOT"
if [[ "${1:-}" == --reliability ]]; then
  exec "$PYTHON" -m pytest -m reliability tests/reliability "${@:2}"
fi
# Whole files, in the order of tests/slowest_files.py: by the number of their tests,
# files with few that start many processes would come last, and one process work on them
# while the others wait. What was compiled is kept in .pytest_cache (tests/program_cache.py).
exec "$PYTHON" -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile \
  --no-loadscope-reorder "$@"
