"""A manifest lists plain files of its own folder, each once, and says nothing in two ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from resprout import artifacts
from resprout.errors import ArtifactError
from resprout.types import Student, Teacher
from tests.resprout.sealing import resealed

SHA = "0" * 64


@pytest.fixture
def teacher(tiny_teacher: Teacher, tmp_path: Path) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_second_file_of_the_same_stem_never_takes_the_place_of_the_first(teacher: Path) -> None:
    tensors, manifest = artifacts.load_artifact(teacher, "teacher")
    (teacher / "z").mkdir()
    save_file({name: torch.ones_like(it) for name, it in tensors["weights"].items()}, teacher / "z/weights.safetensors")
    digest = artifacts.sha256_of(teacher / "z/weights.safetensors")
    resealed(teacher, lambda fields: fields.update(files={**manifest.files, "z/weights.safetensors": digest}))
    with pytest.raises(ArtifactError, match="files"):
        artifacts.load_teacher(teacher)


@pytest.mark.parametrize(
    "name",
    [
        "a/weights.safetensors",
        "../secret",
        "/etc/hostname",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
        "a\n",
        "a\0b",
        "ｗeights.safetensors",
        "WEIGHTS.safetensors",
        "manifest.json",
        "Manifest.json",
        "a" * 101,
    ],
)
def test_a_file_that_is_no_plain_name_of_its_own_is_refused(teacher: Path, name: str) -> None:
    files = artifacts.read_manifest(teacher).files
    resealed(teacher, lambda fields: fields.update(files={**files, name: SHA}))
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read: files"):
        artifacts.check(teacher)


@pytest.mark.parametrize(
    ("field", "found", "problem"),
    [
        ("files", {f"f{index}": SHA for index in range(1000)}, "files: there are 1,000, and at most 100"),
        ("inputs", [7] * 1000, "inputs: there are 1,000, and at most 100"),
        ("resumed", [SHA] * 100_001, "resumed: there are 100,001, and at most 100,000"),
        ("about", {"it": [[]] * 1_000_001}, "holds more than 1,000,000 values"),
        ("section", {f"{index}": 1 for index in range(1_000_001)}, "holds more than 1,000,000 values"),
    ],
)
def test_more_than_an_artifact_has_is_refused_before_each_is_judged(
    teacher: Path, field: str, found: Any, problem: str
) -> None:
    resealed(teacher, lambda fields: fields.update({field: found}))
    with pytest.raises(ArtifactError, match=problem):
        artifacts.read_manifest(teacher)


def test_faults_without_number_are_told_by_their_number(teacher: Path) -> None:
    resealed(teacher, lambda fields: fields["about"]["model"].update(class_names=[1] * 1000))
    with pytest.raises(ArtifactError, match="1,000 of its fields are missing, unknown or of another type"):
        artifacts.teacher_info(teacher)


@pytest.mark.parametrize(
    "update",
    [
        {"kind": 7},
        {"kind": "\x1b[2K"},
        {"section": ["a"]},
        {"seed": 1.0},
        {"seed": True},
        {"files": []},
        {"files": {"weights.safetensors": "A" * 64}},
        {"files": {"weights.safetensors": SHA + "\n"}},
        {"about": "model"},
        {"computed_on": "\x1b]0;owned\x07"},
        {"resumed": "abc"},
        {"resumed": ["abc"]},
        {"inputs": {}},
        {"inputs": [7]},
        {"inputs": [{"name": "teacher"}]},
        {"schema_version": "1"},
        {"resprout_version": None},
        {"unknown": 1},
    ],
)
def test_a_field_of_another_type_is_refused(teacher: Path, update: dict[str, Any]) -> None:
    resealed(teacher, lambda fields: fields.update(**update))
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read") as refusal:
        artifacts.read_manifest(teacher)
    assert str(refusal.value).isprintable() or str(refusal.value).replace("\n", "").isprintable()


def test_a_record_of_an_input_is_as_strict_at_any_depth(tiny_student: Student, teacher: Path, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student", inputs=artifacts.records({"teacher": teacher}))
    artifacts.save_student(
        tiny_student, tmp_path / "again", inputs=artifacts.records({"student": tmp_path / "student"})
    )
    records = json.loads((tmp_path / "again" / "manifest.json").read_text())["inputs"]
    assert artifacts.read_manifest(tmp_path / "again").inputs == records
    records[0]["inputs"][0]["sha256"] = "abc"
    resealed(tmp_path / "again", lambda fields: fields.update(inputs=records))
    with pytest.raises(ArtifactError, match="sha256"):
        artifacts.read_manifest(tmp_path / "again")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: text.replace(b'"seed"', b'"kind": "dreams",\n  "seed"'), "names 'kind' twice"),
        (lambda text: text.replace(b'"seed": null', b'"seed": ' + b"[" * 10**5), "nested too deep"),
        (lambda text: text.replace(b'"seed": null', b'"seed": ' + b"[" * 200 + b"]" * 200), "nested too deep"),
        (lambda text: text + b" " * (1 << 26), "larger than"),
        (lambda text: text.replace(b'"red"', rb'"\ud800"'), "surrogates"),
        (lambda text: text.replace(b'"red"', b'"\xff"'), "invalid start byte"),
    ],
)
def test_a_text_that_nobody_of_ours_wrote_is_refused(
    teacher: Path, damage: Callable[[bytes], bytes], problem: str
) -> None:
    path = teacher / "manifest.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=problem):
        artifacts.read_manifest(teacher)


def test_a_manifest_of_a_later_form_says_which_version_reads_it(teacher: Path) -> None:
    resealed(teacher, lambda fields: fields.update(schema_version=2, resprout_version="9.1", of_its_own={"a": 1}))
    with pytest.raises(ArtifactError, match="schema version 2") as refusal:
        artifacts.read_manifest(teacher)
    assert "use Resprout 9.1" in refusal.value.now
