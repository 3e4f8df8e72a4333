#!/usr/bin/env bash
# Makes the environments that `make bench` measures in, beside .venv and never in it: .venv-bench with the other torch
# libraries, and with JAX=1 .venv-jax with flowjax. Both see what is installed in .venv, its torch among it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${BASE_PYTHON:-$PWD/.venv/bin/python}
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

beside() { # folder, what pip is to install
  local venv=$PWD/$1
  shift
  local state
  state=$(echo "$packages $*" | cat - benchmarks/requirements*.txt | cksum)
  [ "$(cat "$venv/.set-up" 2>/dev/null)" = "$state" ] && return
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip --disable-pip-version-check install -q "$@" </dev/null ||
    { echo "bench: not installed: $*; measured without" >&2; state=; }
  echo "import site; site.addsitedir('$packages')" \
    > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
  echo "$state" > "$venv/.set-up"
}

beside .venv-bench --no-deps -r benchmarks/requirements.txt
[ -z "${JAX:-}" ] || beside .venv-jax -r benchmarks/requirements-jax.txt
