"""Artifacts: what a stage writes and the next one reads; folders of safetensors with a manifest of digests."""

from __future__ import annotations

from resprout.artifacts.folder import (
    load_artifact,
    pack_bits,
    save_artifact,
    unpack_bits,
)
from resprout.artifacts.labelled import load_test_set, save_test_set
from resprout.artifacts.networks import load_student, load_teacher, save_student, save_teacher, teacher_info
from resprout.artifacts.sensitivity import load_sensitivity, save_sensitivity
from resprout.artifacts.shards import load_shard, save_merged, save_shard
from resprout.artifacts.size import stored_size
from resprout.artifacts.typed import (
    load_dreams,
    load_evaluation,
    load_statistics,
    save_dreams,
    save_evaluation,
    save_statistics,
)
from resprout.files import sha256_of
from resprout.manifest import MANIFEST, SCHEMA_VERSION, Manifest, check, digest_of, read_manifest, record_of, records

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "Manifest",
    "check",
    "digest_of",
    "load_artifact",
    "load_dreams",
    "load_evaluation",
    "load_sensitivity",
    "load_shard",
    "load_statistics",
    "load_student",
    "load_teacher",
    "load_test_set",
    "pack_bits",
    "read_manifest",
    "record_of",
    "records",
    "save_artifact",
    "save_dreams",
    "save_evaluation",
    "save_merged",
    "save_sensitivity",
    "save_shard",
    "save_statistics",
    "save_student",
    "save_teacher",
    "save_test_set",
    "sha256_of",
    "stored_size",
    "teacher_info",
    "unpack_bits",
]
