"""What an artifact was computed on: recorded where it decides bits, and never more than the kind of device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resprout import artifacts, provenance, synthesis
from resprout.errors import ArtifactError
from resprout.recipe import DeepInversionSection
from resprout.report.provenance import chain
from resprout.statistics import extract
from resprout.types import DreamSet, DreamShard, Evaluation, ModelScore, Sensitivity, Student, Teacher

H100 = "NVIDIA H100 80GB HBM3"
SECTION = DeepInversionSection(num_images=8, num_held_out=8, group_size=8, iterations=2, precision="float32")


@pytest.fixture
def shards(tiny_teacher: Teacher) -> list[DreamShard]:
    """Both halves of a small set."""
    found = extract(tiny_teacher)
    return [
        synthesis.synthesize_shard(tiny_teacher, found, SECTION, seed=0, shard_index=index, num_shards=2)
        for index in range(2)
    ]


@pytest.fixture
def savers(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, shards: list[DreamShard]
) -> dict[str, Callable[..., str]]:
    """How each artifact is written that a stage computed."""
    space, scan = tiny_teacher.info.input, torch.ones(1, 1, dtype=torch.float64)
    evaluation = Evaluation([ModelScore("teacher", 1.0, 0.0)], {}, 0, 64, ("a", "b"))
    sensitivity = Sensitivity(("fc.weight",), (128,), (0.5,), scan, scan, None, None, 8, 8, whole_agreement=1.0)
    students = {
        kind: lambda path, kind=kind, **more: artifacts.save_student(tiny_student, path, kind=kind, **more)
        for kind in ("student", "repaired", "recovered")
    }
    return {
        "dream_shard": lambda path, **more: artifacts.save_shard(shards[0], path, input=space, **more),
        "dreams": lambda path, **more: artifacts.save_dreams(tiny_dreams, path, input=space, **more),
        **students,
        "evaluation": lambda path, **more: artifacts.save_evaluation(evaluation, path, **more),
        "sensitivity": lambda path, **more: artifacts.save_sensitivity(sensitivity, path, **more),
    }


@pytest.mark.parametrize(
    "kind", ["dream_shard", "dreams", "student", "repaired", "recovered", "evaluation", "sensitivity"]
)
def test_what_a_stage_computed_says_on_what(savers: dict[str, Callable[..., str]], tmp_path: Path, kind: str) -> None:
    digests = [savers[kind](tmp_path / name, computed_on=name) for name in (H100, "cpu")]
    assert artifacts.read_manifest(tmp_path / H100, kind).computed_on == H100
    assert digests[0] != digests[1]
    assert provenance.record_of(kind, tmp_path / H100)["computed_on"] == H100


def test_manifests_from_before_it_was_recorded_load_and_stay_as_they_are(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student")
    written = (tmp_path / "student" / "manifest.json").read_text()
    assert "computed_on" not in written
    manifest = artifacts.read_manifest(tmp_path / "student")
    assert manifest.computed_on == ""
    assert manifest.to_json() == written
    assert "computed_on" not in provenance.record_of("student", tmp_path / "student")
    assert artifacts.load_student(tmp_path / "student").mask.num_kept == tiny_student.mask.num_kept


def test_the_seal_covers_it(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student", computed_on="cpu")
    path = tmp_path / "student" / "manifest.json"
    path.write_text(path.read_text().replace('"cpu"', f'"{H100}"'))
    with pytest.raises(ArtifactError, match="was edited"):
        artifacts.read_manifest(tmp_path / "student")


@pytest.mark.parametrize(
    ("kinds", "said"), [((H100, H100), H100), ((H100, "cpu"), f"{H100}, cpu"), (("", ""), ""), (("", "cpu"), "cpu")]
)
def test_merged_dreams_name_every_kind_that_their_shards_were_computed_on(
    tiny_teacher: Teacher, shards: list[DreamShard], tmp_path: Path, kinds: tuple[str, str], said: str
) -> None:
    paths = [tmp_path / str(index) for index in range(2)]
    for path, shard, kind in zip(paths, shards, kinds, strict=True):
        artifacts.save_shard(shard, path, input=tiny_teacher.info.input, computed_on=kind)
    artifacts.save_merged(synthesis.merge(shards), tmp_path / "dreams", shards=paths)
    assert artifacts.read_manifest(tmp_path / "dreams").computed_on == said


def test_the_chain_of_a_report_holds_it(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student", computed_on=H100)
    artifacts.save_student(
        replace(tiny_student), tmp_path / "after", inputs=artifacts.records({"student": tmp_path / "student"})
    )
    steps = chain(provenance.record_of("recovered", tmp_path / "after"))
    assert [(step.name, step.computed_on) for step in steps] == [("student", H100), ("recovered", "")]
