#!/bin/sh
# Render every overlay and validate it, offline, for each version of Kubernetes: k8s/check.sh [VERSION...]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# Warnings that are no fault of ours: kinds of which the validator has no schema, since a cluster's add-on brings them.
ALLOWED="kind (ExternalSecret|SealedSecret|CiliumNetworkPolicy|ResourceFlavor|ClusterQueue|LocalQueue) with"

[ $# -gt 0 ] || set -- 1.30 1.31 1.32 1.33 1.34 1.35 1.36
command -v kubectl >/dev/null || {
    echo "skipped: kubectl is not installed; the overlays were not rendered"
    exit 0
}
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for overlay in "$here"/overlays/*/; do
    kubectl kustomize "$overlay" >"$rendered/$(basename "$overlay").yaml"
done
for version; do
    failed=0
    said=$(${KUBERNETES_VALIDATE:-kubernetes-validate} --strict -k "$version" "$rendered"/*.yaml \
        "$here"/admission.yaml "$here"/namespaces/*.yaml "$here"/examples/*.yaml) || failed=1
    wrong=$(echo "$said" | grep -v '^INFO ' | grep -vE "^WARN .*$ALLOWED" || true)
    if [ $failed -ne 0 ] || [ -n "$wrong" ]; then
        echo "error: not valid for Kubernetes $version:" >&2
        echo "${wrong:-$said}" >&2
        exit 1
    fi
    echo "Kubernetes $version: $(echo "$said" | grep -c '^INFO ') objects are valid"
done
