from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from resprout.sources.files import read_weights
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed, damaged
from tests.fuzz.test_manifests import LOADS
from tests.resprout.sealing import resealed

FILES = {
    "teacher": "weights",
    "student": "mask",
    "shrunk": "channels",
    "statistics": "statistics",
    "shard": "shard",
    "dreams": "dreams",
    "test_set": "test_set",
    "evaluation": "confusions",
    "sensitivity": "sensitivity",
}


def safetensors_like(valid: bytes) -> SearchStrategy[bytes]:
    """Files with another header, or with a few other bytes."""
    size = int.from_bytes(valid[:8], "little")
    header, rest = json.loads(valid[8 : 8 + size]), valid[8 + size :]

    def put_together(fields: object) -> bytes:
        text = json.dumps(fields).encode()
        return len(text).to_bytes(8, "little") + text + rest

    return (
        changed(header).map(put_together)
        | damaged(valid)
        | st.integers(0, 2**64 - 1).map(lambda claimed: claimed.to_bytes(8, "little") + valid[8:])
    )


@pytest.mark.parametrize("kind", LOADS)
def test_an_artifact_of_any_tensors_is_loaded_or_refused(fuzz: Fuzz, every_kind: Path, kind: str) -> None:
    name = f"{FILES[kind]}.safetensors"
    path = every_kind / kind / name

    def load(content: bytes) -> None:
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        resealed(path.parent, lambda fields: fields["files"].update({name: digest}))
        LOADS[kind](path.parent)

    fuzz(safetensors_like(path.read_bytes()), load)


def test_weights_of_any_header_are_read_or_refused(fuzz: Fuzz, every_kind: Path) -> None:
    path = every_kind / "teacher" / "weights.safetensors"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_weights(path, "strangers.safetensors")

    fuzz(safetensors_like(path.read_bytes()), read)
