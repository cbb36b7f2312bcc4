#!/usr/bin/env bash
# Install Resprout's command line for a build, from the checkout that this script is in. Nothing is installed but the
# files that constraints.txt has the hashes of:
#   ci/install.sh DIR    makes a virtual environment there; DIR/bin/resprout is the command
# Environment: PYTHON (default python3). GITHUB_PATH: gets DIR/bin, as GitHub Actions wants it.
set -euo pipefail
environment=$1
root=$(cd "$(dirname "$0")/.." && pwd)
pins=$root/constraints.txt
"${PYTHON:-python3}" -m venv "$environment"
sed -n '/^uv==/,/[^\]$/p' "$pins" |
    "$environment/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement /dev/stdin
uv=$environment/bin/uv
install=("$uv" pip install --quiet --python "$environment/bin/python" --require-build-hashes --build-constraints "$pins")
# what is asked for by name, each at its version: with hashes required, uv takes nothing less
"$uv" pip compile --quiet --python "$environment/bin/python" --no-deps --no-annotate --no-header --constraints "$pins" \
    --extra pipeline --extra storage "$root/pyproject.toml" |
    "${install[@]}" --require-hashes --constraints "$pins" --requirement -
"${install[@]}" --no-deps "$root"
if [ -n "${GITHUB_PATH:-}" ]; then echo "$environment/bin" >>"$GITHUB_PATH"; fi
"$environment/bin/resprout" --version
