#!/usr/bin/env bash
# A stand-in for python:3.11-slim from Debian's packages, for machines that can pull no image:
#   docker/debian-base.sh [NAME], then BASE_IMAGE=NAME make images. Needs root and debootstrap.
set -euo pipefail
name=${1:-resprout-base:bookworm}
docker=${DOCKER:-docker}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"  # it becomes the image's root folder

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder" >/dev/null
# a company's own authorities, which its mirrors are signed by
find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$folder/usr/local/share/ca-certificates/" \;
chroot "$folder" update-ca-certificates >/dev/null 2>&1
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
tar -C "$folder" -c . | "$docker" import - "$name" >/dev/null
echo "made $name"
