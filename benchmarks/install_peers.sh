#!/usr/bin/env bash
# Make a virtual environment in which fewstep, learn2learn, higher and TorchOpt can all be imported.
#
#   benchmarks/install_peers.sh [VENV]        VENV: default /tmp/peers; PYTHON: the interpreter, default python3.11
#
# It may be run again: what is there already is kept. Needs a C compiler. PEERS.md says what is worked around and why.
set -euo pipefail

venv=${1:-/tmp/peers}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

[ -x "$venv/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$venv"
python=$(cd "$venv/bin" && pwd)/python
pip() { "$python" -m pip --disable-pip-version-check "$@"; }

# First, so that it chooses the torch. Every peer comes with --no-deps and so cannot replace it.
pip install --quiet --editable "$root" --constraint "$root/constraints.txt"

# optree and graphviz: what `import torchopt` needs beyond torch. tqdm and requests: what `import learn2learn` does.
pip install --quiet --no-deps higher==0.2.1 torchopt==0.7.3 optree graphviz
pip install --quiet tqdm requests

# learn2learn imports its environments and vision data sets with itself. They are not used here, and a torchvision must
# match the build of torch exactly, so gym and torchvision become names that can be imported, no more.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
standin() { # standin PACKAGE/MODULE.py: its code on stdin
  mkdir -p "$(dirname "$site/$1")"
  { echo '"""Stand-in made by fewstep, benchmarks/install_peers.sh: only there to be imported."""'; cat; } >"$site/$1"
}
vacant() { # vacant PACKAGE: absent, or a stand-in of ours; a real one is left alone
  [ ! -e "$site/$1" ] || grep -q 'Stand-in made by fewstep' "$site/$1/__init__.py"
}
if vacant gym; then
  standin gym/__init__.py <<<'from gym.core import Env'
  standin gym/core.py <<<'class Env: ...'
  standin gym/error.py <<<'class DependencyNotInstalled(Exception): ...'
  standin gym/envs/__init__.py <<<'from gym.envs import registration'
  standin gym/envs/registration.py <<<'def register(*args, **kwargs): ...'
fi
if vacant torchvision; then
  standin torchvision/__init__.py <<<'from torchvision import datasets, transforms'
  standin torchvision/datasets/__init__.py <<<'class ImageFolder: ...'
  standin torchvision/datasets/folder.py <<<'def default_loader(path): raise NotImplementedError'
  standin torchvision/datasets/omniglot.py <<<'class Omniglot: ...'
  standin torchvision/transforms/__init__.py <<<'def __getattr__(name): return type(name, (), {})'
fi

# The C files in learn2learn's sdist come from Cython 0.29.24 and 0.29.26 and do not compile on Python 3.11; those that
# 0.29.37 makes of the same sources do. setup.py would use the old ones, so they are made anew before it is run.
if ! pip show --quiet learn2learn 2>/dev/null; then
  pip install --quiet Cython==0.29.37 setuptools
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  pip download --quiet --no-deps --no-build-isolation --no-binary learn2learn --dest "$work" learn2learn==0.2.0
  tar -xzf "$work/learn2learn-0.2.0.tar.gz" -C "$work"
  cd "$work/learn2learn-0.2.0"
  rm -rf .eggs tests learn2learn/data/*.c  # tests: setup.py would install them as a package of that name
  "$(dirname "$python")/cython" -3 -X embedsignature=True learn2learn/data/*.pyx
  pip install --quiet --no-deps --no-build-isolation .
  cd "$root"
fi

cd "$root/benchmarks"
"$python" - <<'END'
import peers
import torch

found = peers.installed()
print("torch", torch.__version__, found)
missing = sorted(set(peers.PEERS) - set(found))
if missing:
    raise SystemExit(f"cannot be imported: {', '.join(missing)}")
END
