"""What an artifact's `manifest.json` says of it. Without torch, for stages that only move bytes."""

from __future__ import annotations

from resprout.manifest.form import MANIFEST, SCHEMA_VERSION, Manifest, first_problem
from resprout.manifest.reading import check, check_file, digest_of, read_manifest
from resprout.manifest.records import record_of, records

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "Manifest",
    "check",
    "check_file",
    "digest_of",
    "first_problem",
    "read_manifest",
    "record_of",
    "records",
]
