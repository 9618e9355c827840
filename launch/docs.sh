#!/usr/bin/env bash
# Build the site: the pages of docs/, and the reference from the docstrings, in build/docs.
#
#   bash launch/docs.sh [arguments of sphinx-build]
#
# Whatever is not sound ends it with an error: a link that leads nowhere, a page that no
# table of contents has, a docstring that cannot be read.
#
# PYTHON: an interpreter whose packages are taken as they are; nothing is installed.
set -euo pipefail
given="${PYTHON:-}"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [[ -n "$given" ]]; then
  PYTHON="$given"
else
  DIG_JAX_EXTRAS=docs make_environment
fi
cd "$ROOT"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
"$PYTHON" -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees "$@" \
  docs build/docs
echo "The site is in $ROOT/build/docs: open index.html."
