#!/usr/bin/env bash
# Run the tests, a process for each core (at most 8). Arguments go to pytest.
#
#   bash launch/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck disable=SC2209 # the extra of that name, not the command
DIG_JAX_EXTRAS=test make_environment
cd "$ROOT"
exec "$PYTHON" -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile "$@"
