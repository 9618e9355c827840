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

# For training on a CPU: keep freed memory. Each step asks for hundreds of megabytes anew;
# as it is, Linux hands them out and takes them back in pages of 4 KB
# (docs/notes/benchmarks.md). By tcmalloc where it is installed, else by glibc's settings
# and huge pages; what is set already is left alone.
keep_memory() {
  local library m=glibc.malloc
  library="$({ PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true; } |
    awk '/libtcmalloc(_minimal)?\.so\.4 .*(x86-64|AArch64)/ && !found++ { print $NF }')"
  if [[ -n "$library" && -z "${LD_PRELOAD:-}" ]]; then
    export LD_PRELOAD="$library"
  else
    local tunables="$m.hugetlb=1:$m.mmap_max=0:$m.trim_threshold=1000000000000"
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$tunables}"
  fi
}
