#!/bin/sh
# Install an overlay, or install it again: k8s/install.sh standalone | multi-user | byo-minio | dev | FOLDER
# It asks the cluster that kubectl points at where its API server is, and writes that into the overlay's api-server.yaml.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

fail() { # WHAT [NOW]
    echo "error: $1" >&2
    if [ $# -gt 1 ]; then echo "  now: $2" >&2; fi
    exit 1
}

[ $# -eq 1 ] || fail "which overlay?" "k8s/install.sh standalone, multi-user, byo-minio, dev, or a folder of yours"
overlay=$1
[ -d "$overlay" ] || overlay=$here/overlays/$1
[ -f "$overlay/kustomization.yaml" ] || fail "$1 is no overlay" "ls k8s/overlays"
namespace=$(sed -n 's/^namespace: *//p' "$overlay/kustomization.yaml")
[ -n "$namespace" ] || fail "$overlay/kustomization.yaml names no namespace"

# An ipBlock for each address, one after the other: the endpoints, which is what most network plugins see, and the
# service's own, which is what the others see.
peers() {
    for address in $1; do
        case $address in
            *:*) echo "        - ipBlock: {cidr: \"$address/128\"}" ;;
            *) echo "        - ipBlock: {cidr: $address/32}" ;;
        esac
    done
}

ports() {
    for port in $1; do echo "        - {protocol: TCP, port: $port}"; done
}

api_server() {
    slices='kubectl get endpointslices --namespace default --selector kubernetes.io/service-name=kubernetes'
    endpoints=$($slices --output 'jsonpath={.items[*].endpoints[*].addresses[*]}')
    endpoint_ports=$($slices --output 'jsonpath={.items[*].ports[*].port}' | tr ' ' '\n' | sort -u)
    service=$(kubectl get service kubernetes --namespace default --output 'jsonpath={.spec.clusterIPs[*]}')
    service_ports=$(kubectl get service kubernetes --namespace default --output 'jsonpath={.spec.ports[*].port}')
    [ -n "$endpoints" ] && [ -n "$endpoint_ports" ] || fail "the cluster does not say where its API server is" \
        "write its addresses into $overlay/api-server.yaml, then: kubectl apply -k $overlay"
    {
        echo "# Where this cluster's API server is; install.sh writes it."
        echo "- op: replace"
        echo "  path: /spec/egress"
        echo "  value:"
        echo "    - to:"
        peers "$endpoints"
        echo "      ports:"
        ports "$endpoint_ports"
        echo "    - to:"
        peers "$service"
        echo "      ports:"
        ports "$service_ports"
    } >"$overlay/api-server.yaml.part"
    mv "$overlay/api-server.yaml.part" "$overlay/api-server.yaml"
}

random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# For dev alone: keys that nobody has seen, through a pipe and in no argument. What is there stays.
secret() { # NAME
    if kubectl get secret "$1" --namespace "$namespace" >/dev/null 2>&1; then return; fi
    kubectl create --filename - <<END
apiVersion: v1
kind: Secret
metadata: {name: $1, namespace: $namespace}
stringData:
  endpoint: http://resprout-store.$namespace.svc.cluster.local:8333
  accesskey: $(random 10)
  secretkey: $(random 20)
END
}

kubectl get namespace "$namespace" >/dev/null || fail "there is no namespace $namespace" \
    "install Kubeflow Pipelines first, or make the profile: docs/install.md"
api_server
for labels in "$here"/namespaces/*.yaml; do
    if grep -qx "  name: $namespace" "$labels"; then
        # whoever else has set a label to something else keeps it
        kubectl apply --server-side --field-manager resprout --filename "$labels" ||
            echo "note: $namespace has Pod Security labels of its own, which stay" >&2
    fi
done
if [ "$(basename "$overlay")" = dev ]; then
    for name in resprout-storage-admin resprout-storage resprout-checkpoints; do secret "$name"; done
fi
mentioned=$(kubectl kustomize "$overlay" | sed -n 's/.*secretName: *//p')
for name in $(printf '%s\n' "$mentioned" resprout-storage resprout-checkpoints | sort -u); do
    kubectl get secret "$name" --namespace "$namespace" >/dev/null 2>&1 ||
        echo "note: the secret $name is not there yet: docs/install.md" >&2
done
# a Job cannot be changed, only made anew; it does nothing twice
kubectl delete job resprout-storage-setup --namespace "$namespace" --ignore-not-found
kubectl apply -k "$overlay"
echo "next: kubectl wait --namespace $namespace --for=condition=complete --timeout=10m job/resprout-storage-setup"
