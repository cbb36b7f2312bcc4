#!/bin/sh
# Carry out the lifecycle rules of SeaweedFS's buckets, once a day or every $PAUSE_SECONDS. All on the pod's loopback.
set -u

while sleep "$PAUSE_SECONDS"; do
    echo "s3.lifecycle.run-shard -shards 0-15 -s3 ${S3:-127.0.0.1:18333}" |
        weed shell -master="${MASTER:-127.0.0.1:9333}" -filer="${FILER:-127.0.0.1:8888}"
done
