#!/usr/bin/env bash
# Install Resprout's command line for a build, from the checkout that this script is in, every package pinned:
#   ci/install.sh DIR    makes a virtual environment there; DIR/bin/resprout is the command
# Environment: PYTHON (default python3). GITHUB_PATH: gets DIR/bin, as GitHub Actions wants it.
#   UV_TORCH_BACKEND=cpu takes PyTorch's smaller builds from its own index; a build needs no GPU, the cluster does.
set -euo pipefail
environment=$1
root=$(cd "$(dirname "$0")/.." && pwd)
"${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" uv
"$environment/bin/uv" pip install --quiet --python "$environment/bin/python" \
    --constraints "$root/constraints.txt" --build-constraints "$root/constraints.txt" "${root}[pipeline,storage]"
if [ -n "${GITHUB_PATH:-}" ]; then echo "$environment/bin" >>"$GITHUB_PATH"; fi
"$environment/bin/resprout" --version
