"""A stage that goes on from what an earlier try of it kept makes the same tensors, and its manifest says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from resprout import artifacts
from resprout.storage.keys import CHECKPOINT_KEY_FILE
from tests.components.stages import PRUNING, RECOVERY, Stage, dreamt, pruned, recovered

MADE = ("shard-0-of-1", "dreams", "student", "repaired", "recovered")
ROUNDS = {**PRUNING, "rounds": 2.0, "round_epochs": 1.0}


def run(stage: Stage, checkpoints: Path) -> None:
    dreamt(stage, checkpoints=str(checkpoints))
    student, _ = pruned(stage, ROUNDS, RECOVERY, checkpoints=str(checkpoints))
    recovered(stage, student, checkpoints=str(checkpoints))


def test_what_went_on_holds_the_same_tensors_and_names_the_checkpoints(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECKPOINT_KEY_FILE, str(tmp_path / "key"))
    kept = tmp_path / "checkpoints"

    def manifests() -> dict[str, artifacts.Manifest]:
        return {name: artifacts.read_manifest(stage.folder / name) for name in MADE}

    run(stage, kept)
    unbroken = manifests()
    assert all("resumed" not in (stage.folder / name / "manifest.json").read_text() for name in MADE)
    there = {hashlib.sha256(path.read_bytes()).hexdigest() for path in kept.glob("*.checkpoint")}

    run(stage, kept)
    for name, manifest in manifests().items():
        assert manifest.files == unbroken[name].files, name
        assert manifest.resumed, name
        assert set(manifest.resumed) <= there, name
    named = json.loads((stage.folder / "dreams" / "manifest.json").read_text())["resumed"]
    assert named == sorted(unbroken_digests(kept, "synthesis"))

    (tmp_path / "key").unlink()  # of a run that starts anew
    run(stage, kept)
    assert {name: manifest.files for name, manifest in manifests().items()} == {
        name: manifest.files for name, manifest in unbroken.items()
    }
    assert not any(manifest.resumed for manifest in manifests().values())


def unbroken_digests(kept: Path, stage: str) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in kept.glob(f"{stage}-*.checkpoint")]
