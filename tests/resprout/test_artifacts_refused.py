from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resprout import artifacts, provenance
from resprout.artifacts.networks import STUDENT_KINDS
from resprout.errors import ArtifactError, DivergedError, ResproutError, UnsupportedModelError
from resprout.types import (
    DreamSet,
    PruningMask,
    Student,
    Teacher,
)
from tests.resprout.sealing import resealed


@pytest.fixture
def written(tiny_teacher: Teacher, tiny_student: Student, tmp_path: Path) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    artifacts.save_student(
        tiny_student, tmp_path / "student", inputs=artifacts.records({"teacher": tmp_path / "teacher"})
    )
    return tmp_path


def edit(path: Path, change: Callable[[dict], object]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize("name", ["weights.safetensors", "mask.safetensors", "density.json"])
def test_one_flipped_bit_is_refused(written: Path, name: str) -> None:
    path = written / "student" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=f"{name} has sha256"):
        artifacts.load_student(written / "student")


def test_a_truncated_file_is_refused(written: Path) -> None:
    path = written / "teacher" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors has sha256") as refusal:
        artifacts.load_teacher(written / "teacher")
    assert "truncated" in refusal.value.why


def test_a_missing_file_is_refused(written: Path) -> None:
    (written / "student" / "mask.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"lacks mask\.safetensors"):
        artifacts.load_student(written / "student")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "teacher", "unknown": 1}'])
def test_a_damaged_manifest_is_refused(written: Path, content: str) -> None:
    (written / "teacher" / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
        artifacts.load_teacher(written / "teacher")


def test_an_edited_manifest_is_refused(written: Path) -> None:
    edit(written / "teacher" / "manifest.json", lambda fields: fields["about"].update(source="elsewhere"))
    with pytest.raises(ArtifactError, match="was edited"):
        artifacts.load_teacher(written / "teacher")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["about"].pop("model"),
        lambda fields: fields["about"]["model"].update(extra=1),
        lambda fields: fields["about"]["model"].update(num_classes=7),
        lambda fields: fields["about"]["model"]["arguments"].update(width=4),
        lambda fields: fields["about"]["model"]["arguments"].update(depth_of_field=4),
        lambda fields: fields["about"]["model"].update(class_names="abcd"),
        lambda fields: fields["about"]["model"].update(class_names=[1, 2, 3, 4]),
        lambda fields: fields["about"]["model"].update(num_classes=4.0),
        lambda fields: fields["about"]["model"].update(arguments=["width"]),
        lambda fields: fields["about"]["model"].update(custom_code="no"),
        lambda fields: fields["about"]["model"]["input"].update(mean=None),
        lambda fields: fields["about"].update(notes="one"),
        lambda fields: fields["about"].update(channels=[1]),
        lambda fields: fields["about"].pop("mask_shapes"),
        lambda fields: fields["about"]["mask_shapes"].update({"conv1.weight": [-8, -3, 3, 3]}),
        lambda fields: fields["about"]["mask_shapes"].update({"conv1.weight": [4, 4]}),
        lambda fields: fields["about"]["mask_shapes"].update({"conv1.weight": [8, 27]}),
    ],
)
def test_a_manifest_that_misdescribes_its_folder_is_refused(written: Path, change: Callable[[dict], object]) -> None:
    resealed(written / "student", change)
    with pytest.raises(ResproutError):
        artifacts.load_student(written / "student")


def test_a_mask_that_the_weights_do_not_obey_is_refused(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student")
    tighter = PruningMask({name: torch.zeros_like(keep) for name, keep in tiny_student.mask.keep.items()})
    tensors, manifest = artifacts.load_artifact(tmp_path / "student", "student")
    tensors["mask"] = {name: artifacts.pack_bits(keep) for name, keep in tighter.keep.items()}
    artifacts.save_artifact(tmp_path / "student", kind="student", tensors=tensors, about=manifest.about)
    with pytest.raises(ArtifactError, match="not zero"):
        artifacts.load_student(tmp_path / "student")


def test_the_wrong_kind_is_refused(written: Path) -> None:
    with pytest.raises(ArtifactError, match="of kind 'teacher', not 'dreams'"):
        artifacts.load_dreams(written / "teacher")
    with pytest.raises(ArtifactError, match="of kind 'teacher', not 'student'"):
        artifacts.load_student(written / "teacher")


def test_another_schema_is_refused_and_says_which_version_reads_it(written: Path) -> None:
    resealed(written / "teacher", lambda fields: fields.update(schema_version=99))
    with pytest.raises(ArtifactError, match="schema version 99") as refusal:
        artifacts.load_teacher(written / "teacher")
    assert "use Resprout" in refusal.value.now


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        artifacts.load_teacher(tmp_path)


def test_dreams_in_another_space_are_refused(tiny_teacher: Teacher, tiny_dreams: DreamSet, tmp_path: Path) -> None:
    artifacts.save_dreams(tiny_dreams, tmp_path / "dreams", input=tiny_teacher.info.input)
    resealed(tmp_path / "dreams", lambda fields: fields["about"].update(space="pixels"))
    with pytest.raises(ArtifactError, match="space 'pixels'"):
        artifacts.load_dreams(tmp_path / "dreams")


@pytest.mark.parametrize("load", [artifacts.load_teacher, artifacts.load_student])
def test_custom_code_is_refused_unless_allowed(
    written: Path, load: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written / load.__name__.removeprefix("load_")
    (written / "own_network.py").write_text(
        "from resprout.models import build\n"
        "def make(num_classes, width):\n"
        "    return build('cifar_resnet8', num_classes=num_classes, arguments={'width': width})\n"
    )
    custom = {"architecture": "own_network:make", "custom_code": True}
    resealed(folder, lambda fields: fields["about"]["model"].update(custom))
    monkeypatch.syspath_prepend(str(written))
    with pytest.raises(UnsupportedModelError, match="own_network:make is custom code"):
        load(folder)
    assert load(folder, allow_custom_code=True).info.architecture == "own_network:make"


def test_custom_code_is_refused_also_where_the_manifest_calls_it_ordinary(written: Path) -> None:
    resealed(
        written / "teacher",
        lambda fields: fields["about"]["model"].update(architecture="os:getcwd", custom_code=False),
    )
    with pytest.raises(UnsupportedModelError, match="custom code"):
        artifacts.load_teacher(written / "teacher")


def test_a_failed_save_leaves_the_old_artifact_whole(written: Path) -> None:
    before = artifacts.digest_of(written / "teacher")

    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        artifacts.save_artifact(written / "teacher", kind="teacher", extras=fail)
    assert artifacts.digest_of(written / "teacher") == before
    artifacts.load_teacher(written / "teacher")
    assert sorted(path.name for path in written.iterdir()) == ["student", "teacher"]


def test_saving_again_replaces_the_whole_folder(written: Path, tiny_teacher: Teacher) -> None:
    (written / "teacher" / "notes.txt").write_text("from the last run")
    artifacts.save_teacher(tiny_teacher, written / "teacher")
    assert sorted(path.name for path in (written / "teacher").iterdir()) == ["manifest.json", "weights.safetensors"]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_numbers_that_few_functions_take_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    artifacts.save_artifact(tmp_path / "it", "statistics", tensors={"statistics": {"a": torch.zeros(3, dtype=dtype)}})
    with pytest.raises(ArtifactError, match="which nothing here computes with"):
        artifacts.load_artifact(tmp_path / "it", "statistics")


@pytest.mark.parametrize(
    ("curves", "choice"),
    [(None, None), ("a", {}), ({"loss": "high"}, {"sparsity": 0.5}), ([1], [1]), ({"a": [[]]}, 0.5)],
)
def test_what_a_student_says_of_its_making_is_as_strict(written: Path, curves: object, choice: object) -> None:
    resealed(written / "student", lambda fields: fields["about"].update(curves=curves, sparsity_choice=choice))
    with pytest.raises(ArtifactError, match="does not describe"):
        provenance.recovery_curves(written / "student")
    if choice is not None:
        with pytest.raises(ArtifactError, match="does not describe"):
            provenance.sparsity_choice(written / "student")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var", "fc.bias"])
def test_a_network_that_is_no_numbers_is_never_saved(
    tiny_teacher: Teacher, tiny_student: Student, tmp_path: Path, name: str, value: float
) -> None:
    for network in (tiny_teacher.network, tiny_student.network):
        network.state_dict()[name].view(-1)[0] = value
    for kind in STUDENT_KINDS:
        with pytest.raises(DivergedError, match=rf"the {kind} holds NaN or infinity in 1 of \d+ tensors \({name}\)"):
            artifacts.save_student(tiny_student, tmp_path / "it", kind=kind)
    with pytest.raises(DivergedError, match="the teacher holds NaN"):
        artifacts.save_teacher(tiny_teacher, tmp_path / "it")
    assert not (tmp_path / "it").exists()
