#!/bin/sh
# Write SeaweedFS's identities from the secrets and the policies: $SECRETS/NAME/{accesskey,secretkey}, $POLICIES/NAME.json.
set -eu

key() { # NAME FILE
    value=$(cat "$SECRETS/$1/$2")
    case $value in
        "" | *[!A-Za-z0-9/+=_-]*)
            echo "error: secret $1: $2 is empty, or holds more than letters, digits and / + = _ -" >&2
            exit 1
            ;;
    esac
    printf '%s' "$value"
}

identity() { # NAME RIGHTS
    access=$(key "$1" accesskey)
    secret=$(key "$1" secretkey)
    printf '{"name":"%s","credentials":[{"accessKey":"%s","secretKey":"%s"}],%s}' "$1" "$access" "$secret" "$2"
}

policy() { # NAME
    printf '{"name":"%s","content":"%s"}' "$1" "$(tr -d '\n' <"$POLICIES/$1.json" | sed 's/"/\\"/g')"
}

USERS="resprout-storage resprout-publishing resprout-checkpoints"
umask 077
{
    printf '{"identities":['
    identity resprout-storage-admin '"actions":["Admin"]'
    for name in $USERS; do
        printf ','
        identity "$name" "\"policyNames\":[\"$name\"]"
    done
    printf '],"policies":['
    comma=
    for name in $USERS; do
        printf '%s' "$comma"
        policy "$name"
        comma=,
    done
    printf ']}'
} >"$CONFIG.part"
mv "$CONFIG.part" "$CONFIG"
