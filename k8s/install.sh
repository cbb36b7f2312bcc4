#!/bin/sh
# Install an overlay, or install it again: k8s/install.sh standalone | multi-user | byo-minio | dev | FOLDER
#   k8s/install.sh OVERLAY --print    its manifests for the cluster that kubectl points at; changes nothing
#   k8s/install.sh OVERLAY --delete   takes away what was installed
# With an overlay comes admission.yaml, which the whole cluster has one of. The API server's addresses come from the cluster.
# Nothing is written here.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
usage="k8s/install.sh standalone, multi-user, byo-minio, dev, or a folder of yours; then --print, --delete or nothing"

fail() { # WHAT NOW
    echo "error: $1" >&2
    echo "  now: $2" >&2
    exit 1
}

# An ipBlock for each address, one after the other: the endpoints, which is what most network plugins see, and the
# service's own, which is what the others see.
peers() {
    for address in $1; do
        case $address in
            *:*) echo "            - ipBlock: {cidr: \"$address/128\"}" ;;
            *) echo "            - ipBlock: {cidr: $address/32}" ;;
        esac
    done
}

ports() {
    for port in $1; do echo "            - {protocol: TCP, port: $port}"; done
}

api_server() {
    slices='kubectl get endpointslices --namespace default --selector kubernetes.io/service-name=kubernetes'
    endpoints=$($slices --output 'jsonpath={.items[*].endpoints[*].addresses[*]}')
    endpoint_ports=$($slices --output 'jsonpath={.items[*].ports[*].port}' | tr ' ' '\n' | sort -u)
    service=$(kubectl get service kubernetes --namespace default --output 'jsonpath={.spec.clusterIPs[*]}')
    service_ports=$(kubectl get service kubernetes --namespace default --output 'jsonpath={.spec.ports[*].port}')
    [ -n "$endpoints" ] && [ -n "$endpoint_ports" ] || fail "the cluster does not say where its API server is" \
        "put its addresses into an overlay of yours, as a patch of the NetworkPolicy resprout-api-server, and: kubectl apply -k"
    echo "        - op: replace"
    echo "          path: /spec/egress"
    echo "          value:"
    echo "          - to:"
    peers "$endpoints"
    echo "            ports:"
    ports "$endpoint_ports"
    echo "          - to:"
    peers "$service"
    echo "            ports:"
    ports "$service_ports"
}

# A kustomization of the overlay and this cluster's addresses. Kustomize takes no absolute path: up to the root, and down.
render() { # FOLDER
    up=$(cd "$1" && pwd -P | sed 's|/[^/]*|../|g')
    addresses=$(api_server)
    cat >"$1/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - $up${overlay#/}
patches:
  - target: {kind: NetworkPolicy, name: resprout-api-server}
    patch: |-
$addresses
END
}

random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# For dev alone: keys that nobody has seen, through a pipe and in no argument. What is there stays.
secret() { # NAME [FIELD]
    if kubectl get secret "$1" --namespace "$namespace" >/dev/null 2>&1; then return; fi
    kubectl create --filename - <<END
apiVersion: v1
kind: Secret
metadata: {name: $1, namespace: $namespace}
stringData:
  endpoint: http://resprout-store.$namespace.svc.cluster.local:8333
  accesskey: $(random 10)
  secretkey: $(random 20)
  ${2:-}
END
}

label() { # ARGUMENTS of kubectl apply; whoever else has set a label to something else keeps it
    kubectl apply --server-side --field-manager resprout "$@" ||
        echo "note: $namespace has Pod Security labels of its own, which stay" >&2
}

known() {
    kubectl get namespace "$namespace" >/dev/null || fail "there is no namespace $namespace" \
        "install Kubeflow Pipelines first, or make the profile: docs/install.md"
}

users="resprout-storage
resprout-publishing
resprout-checkpoints"

apply() {
    known
    for labels in "$here"/namespaces/*.yaml; do
        if grep -qx "  name: $namespace" "$labels"; then label --filename "$labels"; fi
    done
    if [ "$(basename "$overlay")" = dev ]; then
        for name in resprout-storage-admin resprout-storage resprout-publishing; do secret "$name"; done
        secret resprout-checkpoints "checkpointkey: $(random 32)"
    fi
    mentioned=$(kubectl kustomize "$folder" | sed -n 's/.*secretName: *//p')
    for name in $(printf '%s\n' "$mentioned" "$users" | sort -u); do
        kubectl get secret "$name" --namespace "$namespace" >/dev/null 2>&1 ||
            echo "note: the secret $name is not there yet: docs/install.md" >&2
    done
    kubectl apply --filename "$here/admission.yaml" || {
        echo "note: a recipe may name any secret of $namespace" >&2
        echo "  now: have an administrator of the cluster apply k8s/admission.yaml" >&2
    }
    # a Job cannot be changed, only made anew; it does nothing twice
    kubectl delete job resprout-storage-setup --namespace "$namespace" --ignore-not-found
    kubectl apply -k "$folder"
    echo "next: kubectl wait --namespace $namespace --for=condition=complete --timeout=10m job/resprout-storage-setup"
    beware
}

# What is left to whoever installs, by the secrets that the overlay mentions.
beware() {
    case $(basename "$overlay"):$mentioned in
        dev:*) ;;
        *mlpipeline-minio-artifact*)
            echo "note: KFP gives every stage the administrator's keys of its object store, where your models lie too" >&2
            echo "  why: policies and users there keep mistakes out, and not code in a stage: docs/install.md#what-standalone-cannot-protect" >&2
            echo "  now: run no code that you do not trust, or take the overlay byo-minio" >&2
            ;;
        *resprout-storage-admin*)
            echo "then: kubectl delete secret resprout-storage-admin --namespace $namespace; only an installation needs it"
            ;;
    esac
}

delete() {
    known
    kubectl delete --ignore-not-found -k "$overlay"
    kubectl get serviceaccounts --all-namespaces --output name | grep -qx serviceaccount/resprout-runner ||
        kubectl delete --ignore-not-found --filename "$here/admission.yaml"
    # the labels that this script set, and no other: those that its next list does not name
    printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n' "$namespace" | label --filename -
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "which overlay?" "$usage"
overlay=$1
[ -d "$overlay" ] || overlay=$here/overlays/$1
[ -f "$overlay/kustomization.yaml" ] || fail "$1 is no overlay" "$usage"
overlay=$(cd "$overlay" && pwd -P)
namespace=$(sed -n 's/^namespace: *//p' "$overlay/kustomization.yaml")
[ -n "$namespace" ] || fail "$overlay/kustomization.yaml names no namespace" "add the line: namespace: NAME"

case ${2-} in
    --delete)
        delete
        exit
        ;;
    --print | "") ;;
    *) fail "$2 is no option" "$usage" ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
render "$folder"
if [ "${2-}" = --print ]; then
    cat "$here/admission.yaml"
    echo ---
    kubectl kustomize "$folder"
else
    apply
fi
