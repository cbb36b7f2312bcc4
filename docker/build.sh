#!/usr/bin/env bash
# Build one image, tag it by version and by git revision, and write its bill of materials beside it:
#   docker/build.sh cpu|cuda|submit
# Environment: IMAGES (default resprout): what its name starts with, as registry.example.org/team/resprout.
#   BASE_IMAGE: a mirror's python:3.11-slim. UV_DEFAULT_INDEX: a mirror of PyPI. UV_TORCH_BACKEND: cpu, for PyTorch's
#   builds without CUDA. DOCKER (default docker). SYFT (default syft): none where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=$1
docker=${DOCKER:-docker} syft=${SYFT:-syft}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' resprout/__init__.py)
revision=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)
name=${IMAGES:-resprout}/$variant

arguments=()
for argument in BASE_IMAGE UV_DEFAULT_INDEX UV_TORCH_BACKEND; do
    if [ -n "${!argument:-}" ]; then arguments+=(--build-arg "$argument=${!argument}"); fi
done
export DOCKER_BUILDKIT=1
if ! "$docker" build --help | grep -q -- '--secret'; then  # what the builder before BuildKit lacks
    echo "error: $docker builds without BuildKit" >&2
    echo "  why: its buildx plugin is missing" >&2
    echo "  now: install it (Debian: docker-buildx, or docker.io's own client: DOCKER=/usr/bin/docker)" >&2
    exit 1
fi
"$docker" build --file docker/Dockerfile --target "$variant" "${arguments[@]}" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --tag "$name:$version" --tag "$name:$revision" .

megabytes=$(("$("$docker" image inspect --format '{{.Size}}' "$name:$revision")" / 1000000))
echo "built $name:$version and $name:$revision, $megabytes MB"
if command -v "$syft" >/dev/null; then
    mkdir -p build
    bill=build/${name//\//-}-$revision.cdx.json
    SYFT_CHECK_FOR_APP_UPDATE=false "$syft" scan --quiet "docker:$name:$revision" --output "cyclonedx-json=$bill"
    echo "wrote $bill, what is in it (CycloneDX)"
else
    echo "no bill of materials: $syft is not installed"
fi
