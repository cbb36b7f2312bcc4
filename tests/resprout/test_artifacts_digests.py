"""An artifact is its digest: what is loaded is what was named, whatever the folder's owner does."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resprout import artifacts
from resprout.errors import ArtifactError
from resprout.manifest import reading
from resprout.synthesis import merge
from resprout.types import DreamGroup, DreamSet, DreamShard, Student, Teacher

OTHER = "f" * 64


@pytest.fixture
def folders(tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, tmp_path: Path) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    artifacts.save_student(
        tiny_student, tmp_path / "student", inputs=artifacts.records({"teacher": tmp_path / "teacher"})
    )
    artifacts.save_dreams(tiny_dreams, tmp_path / "dreams", input=tiny_teacher.info.input)
    return tmp_path


@pytest.mark.parametrize("name", ["teacher", "student", "dreams"])
@pytest.mark.parametrize("reads", ["load", "check", "read_manifest", "record_of"])
def test_another_artifact_than_the_one_that_was_named_is_refused(folders: Path, name: str, reads: str) -> None:
    read: Callable[..., object] = {
        "load": getattr(artifacts, f"load_{name}"),
        "check": artifacts.check,
        "read_manifest": artifacts.read_manifest,
        "record_of": lambda folder, **pin: artifacts.record_of(name, folder, **pin),
    }[reads]
    read(folders / name, sha256=artifacts.digest_of(folders / name))
    with pytest.raises(ArtifactError, match=f"{name} has digest .*, not ffff"):
        read(folders / name, sha256=OTHER)


def test_how_to_feed_a_teacher_is_read_without_building_it(folders: Path, tiny_teacher: Teacher) -> None:
    (folders / "teacher" / "weights.safetensors").unlink()
    digest = artifacts.digest_of(folders / "teacher")
    assert artifacts.teacher_info(folders / "teacher", sha256=digest) == tiny_teacher.info
    with pytest.raises(ArtifactError, match="has digest"):
        artifacts.teacher_info(folders / "teacher", sha256=OTHER)
    with pytest.raises(ArtifactError, match="of kind 'dreams', not 'teacher'"):
        artifacts.teacher_info(folders / "dreams")


def test_inputs_are_recorded_as_they_were_when_they_were_loaded(folders: Path, tiny_teacher: Teacher) -> None:
    inputs = artifacts.records({"teacher": folders / "teacher"})
    before = artifacts.digest_of(folders / "teacher")
    artifacts.save_artifact(folders / "teacher", "teacher", about={"source": "another"})
    artifacts.save_artifact(folders / "made", "statistics", inputs=inputs)
    assert [it["sha256"] for it in artifacts.read_manifest(folders / "made").inputs] == [before]


def test_inputs_of_which_nobody_said_the_digest_are_refused_where_digests_are_said(folders: Path) -> None:
    paths = {name: folders / name for name in ("teacher", "dreams")}
    digests = {name: artifacts.digest_of(path) for name, path in paths.items()}
    assert [it["sha256"] for it in artifacts.records(paths, digests)] == list(digests.values())
    with pytest.raises(ArtifactError, match="nobody said which digest dreams has"):
        artifacts.records(paths, {"teacher": digests["teacher"]})
    with pytest.raises(ArtifactError, match="dreams has digest"):
        artifacts.records(paths, {**digests, "dreams": OTHER})


def test_checkpoints_that_went_in_are_recorded_to_the_end_of_the_chain(tiny_student: Student, tmp_path: Path) -> None:
    plain = artifacts.save_student(tiny_student, tmp_path / "plain")
    artifacts.save_student(tiny_student, tmp_path / "student", resumed=["a" * 64])
    assert artifacts.read_manifest(tmp_path / "student").resumed == ["a" * 64]
    assert artifacts.record_of("student", tmp_path / "student")["resumed"] == ["a" * 64]
    assert "resumed" not in (tmp_path / "plain" / "manifest.json").read_text()
    assert "resumed" not in artifacts.record_of("student", tmp_path / "plain")
    assert artifacts.save_student(tiny_student, tmp_path / "again", resumed=[]) == plain


def test_merged_dreams_name_every_checkpoint_that_went_into_a_shard(tiny_teacher: Teacher, tmp_path: Path) -> None:
    spec = tiny_teacher.info.input
    for index, checkpoint in enumerate(["b" * 64, "a" * 64]):
        group = DreamGroup(index, torch.rand(2, *spec.shape).half(), torch.tensor([0, 1]), False, {})
        shard = DreamShard([group], num_groups=2, num_classes=4)
        artifacts.save_shard(shard, tmp_path / f"{index}", input=spec, resumed=[checkpoint])
    paths = [tmp_path / "0", tmp_path / "1"]
    digests = [artifacts.digest_of(path) for path in paths]
    dreams = merge([artifacts.load_shard(path) for path in paths])
    artifacts.save_merged(dreams, tmp_path / "dreams", shards=paths, digests=digests)
    assert artifacts.read_manifest(tmp_path / "dreams").resumed == ["a" * 64, "b" * 64]
    with pytest.raises(ArtifactError, match="has digest"):
        artifacts.save_merged(dreams, tmp_path / "dreams", shards=paths, digests=digests[::-1])


def test_one_flipped_byte_anywhere_in_an_artifact_is_found_without_building_it(folders: Path) -> None:
    folder = folders / "student"
    digest = artifacts.digest_of(folder)
    assert artifacts.check(folder, "student", sha256=digest).kind == "student"
    chosen = random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(10):
            at = chosen.randrange(len(content))
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << chosen.randrange(8)]) + content[at + 1 :])
            with pytest.raises(ArtifactError):
                artifacts.check(folder, "student", sha256=digest)
        path.write_bytes(content)
    artifacts.check(folder, "student", sha256=digest)


def test_a_file_that_changes_while_it_is_read_is_never_loaded_as_another(
    folders: Path, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, digest = folders / "teacher" / "weights.safetensors", artifacts.digest_of(folders / "teacher")
    for tensor in tiny_teacher.network.state_dict().values():
        tensor.zero_()
    artifacts.save_teacher(tiny_teacher, folders / "zeros")
    honest = reading.sha256_of

    def then_another(path: Path, *rest: object) -> str:
        found = honest(path, *rest)
        if path == weights:
            shutil.copy(folders / "zeros" / "weights.safetensors", weights)
        return found

    monkeypatch.setattr(reading, "sha256_of", then_another)
    loaded = artifacts.load_teacher(folders / "teacher", sha256=digest)
    assert loaded.network.fc.weight.any()


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "density.json"])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_refused_at_once(folders: Path, name: str) -> None:
    path = folders / "student" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ArtifactError, match="no plain file"):
        artifacts.load_student(folders / "student")
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError):
        artifacts.load_student(folders / "student")


def test_loading_takes_less_memory_than_twice_the_file(tmp_path: Path) -> None:
    artifacts.save_artifact(tmp_path / "it", "dreams", tensors={"dreams": {"images": torch.ones(1 << 24)}})

    def most_held() -> int:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(status["VmHWM"].split()[0])

    Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
    before = most_held()
    tensors, _ = artifacts.load_artifact(tmp_path / "it", "dreams")
    assert float(tensors["dreams"]["images"].sum()) == 1 << 24
    assert most_held() - before < 2 * (tmp_path / "it" / "dreams.safetensors").stat().st_size
