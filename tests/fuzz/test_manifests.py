from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.inspection import describe
from resprout import artifacts, provenance
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed, changed_json
from tests.resprout.sealing import sealed

LOADS: dict[str, Callable[[Path], object]] = {
    "teacher": artifacts.load_teacher,
    "student": artifacts.load_student,
    "shrunk": artifacts.load_student,
    "statistics": artifacts.load_statistics,
    "shard": artifacts.load_shard,
    "dreams": artifacts.load_dreams,
    "test_set": artifacts.load_test_set,
    "evaluation": artifacts.load_evaluation,
    "sensitivity": artifacts.load_sensitivity,
}


def test_any_text_is_read_as_a_manifest_or_refused(fuzz: Fuzz, every_kind: Path) -> None:
    path = every_kind / "evaluation" / "manifest.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        artifacts.check(path.parent)
        artifacts.record_of("evaluation", path.parent)

    valid = json.loads(path.read_text())
    fuzz(changed_json(valid), read)
    fuzz(changed(valid).map(lambda fields: sealed(fields).encode()), read)


@pytest.mark.parametrize("kind", LOADS)
def test_an_artifact_of_which_anything_is_said_is_loaded_or_refused(fuzz: Fuzz, every_kind: Path, kind: str) -> None:
    folder = every_kind / kind
    valid = json.loads((folder / "manifest.json").read_text())

    def load(about: object) -> None:
        (folder / "manifest.json").write_text(sealed({**valid, "about": about}))
        LOADS[kind](folder)

    fuzz(changed(valid["about"]), load)


@pytest.mark.parametrize("kind", ["teacher", "student", "shrunk"])
def test_a_model_of_which_anything_is_said_is_shown_or_refused(fuzz: Fuzz, every_kind: Path, kind: str) -> None:
    folder = every_kind / kind
    valid = json.loads((folder / "manifest.json").read_text())

    def show(about: object) -> None:
        (folder / "manifest.json").write_text(sealed({**valid, "about": about}))
        list(describe(folder))
        provenance.recovery_curves(folder)
        provenance.sparsity_choice(folder)

    fuzz(changed(valid["about"]), show)
