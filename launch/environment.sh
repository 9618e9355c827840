# shellcheck shell=bash
# Sourced by the other scripts: makes .venv with the package and sets PYTHON.
#
# DIG_JAX_EXTRAS: extras to install beside the package, such as "test".
# PYTHON3: the interpreter that .venv is made with; python3 by default.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="$ROOT/.venv/bin/python"

make_environment() {
  local extras="${DIG_JAX_EXTRAS:+[$DIG_JAX_EXTRAS]}"
  local stamp="$ROOT/.venv/installed-${DIG_JAX_EXTRAS:-package}"
  local inputs
  inputs="$(cat "$ROOT/setup.py" "$ROOT/pyproject.toml" | cksum)"
  if [[ -f "$stamp" && "$(cat "$stamp")" == "$inputs" ]]; then
    return
  fi
  local start=$SECONDS
  if [[ ! -x "$PYTHON" ]]; then
    local python3="${PYTHON3:-python3}"
    if ! "$python3" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "dig_jax needs Python 3.11 or newer, got $("$python3" --version)." >&2
      echo "Name a newer interpreter: PYTHON3=python3.11 bash $0" >&2
      exit 78
    fi
    "$python3" -m venv "$ROOT/.venv"
  fi
  echo "Installing dig_jax$extras into $ROOT/.venv ..."
  "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$ROOT$extras"
  echo "$inputs" > "$stamp"
  echo "Installed in $((SECONDS - start)) s."
}

# For training on a CPU: keep freed memory, in huge pages. Each step asks for hundreds of
# megabytes anew; as it is, Linux hands them out and takes them back in pages of 4 KB
# (docs/notes/benchmarks.md). What is set already is left alone; only glibc reads it.
keep_memory() {
  local m=glibc.malloc
  local tunables="$m.hugetlb=1:$m.mmap_max=0:$m.trim_threshold=1000000000000"
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$tunables}"
}
