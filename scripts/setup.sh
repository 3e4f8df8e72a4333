#!/usr/bin/env bash
# Makes .venv and installs diffeo there with its tools. The second run is quick.
#
#   PYTHON=python3.12            the interpreter to use (default: python3.11 where there is one, else python3)
#   TORCH_SPEC='torch==2.15.0'   the torch to install (default: the CPU build of the version in constraints.txt)
#
# A torch that is in .venv already is never replaced. pip alone chooses torch: the CPU build where one is on offer;
# where none is, plain torch, but with CI set that is refused on Linux, since it would bring CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$PWD/.venv
python=$venv/bin/python
stamp=$venv/.set-up

say() { echo "setup: $*" >&2; }
state() { echo "$PWD" | cat - pyproject.toml constraints.txt scripts/setup.sh hatch_build.py src/diffeo/kernels/*.[ch] | cksum; }

[ -x "$python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(state)" ] && exit 0

if [ ! -x "$python" ]; then
  base=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
  [ -n "$base" ] || { say "there is no python3; install Python 3.11 or later"; exit 3; }
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { say "$base is older than Python 3.11; name another with PYTHON="; exit 3; }
  say "making .venv with $base"
  "$base" -m venv "$venv"
fi

pip() { "$python" -m pip --disable-pip-version-check "$@" </dev/null; }
torch_version() { "$python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null; }

if ! torch_version >/dev/null; then
  pinned=$(sed -n 's/^torch==//p' constraints.txt)
  numpy=$(grep '^numpy==' constraints.txt)
  say "installing torch"
  if [ -n "${TORCH_SPEC:-}" ]; then
    pip install -q "$TORCH_SPEC" numpy
  elif ! pip install -q "torch==$pinned+cpu" "$numpy" 2>/dev/null; then
    if [ -n "${CI:-}" ] && [ "$(uname)" = Linux ]; then
      say "no CPU build of torch $pinned is on offer; give pip a place that has one, or set TORCH_SPEC"
      exit 3
    fi
    say "no CPU build of torch $pinned is on offer; installing plain torch (large; TORCH_SPEC chooses another)"
    pip install -q -c constraints.txt torch "$numpy"
  fi
fi

# from here on every resolver is held to the torch that is there
{ grep -v '^torch==' constraints.txt; echo "torch==$(torch_version)"; } > "$venv/constraints.txt"
printf '[install]\nconstraint = %s\n' "$venv/constraints.txt" > "$venv/pip.conf"

say "installing diffeo and its tools"
if ! { pip install -q uv 2>/dev/null &&
  "$python" -m uv pip install -q --python "$python" -c "$venv/constraints.txt" -e '.[dev]' </dev/null; }; then
  say "uv is of no help here; going on with pip"
  pip install -q -e '.[dev]'
fi
"$python" -c 'import torch, diffeo' || { say "the installation does not work; remove .venv and run this again"; exit 3; }
state > "$stamp"
say "done: torch $(torch_version) in .venv"
