from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from resprout import artifacts, datasets, sources
from resprout.errors import ArtifactError, DatasetError, StorageError
from resprout.progress import Progress
from resprout.recipe import EvaluationSection, TeacherSection
from resprout.storage import ObjectAddress, Storage, stored
from resprout.types import LabelledImages, Teacher

pytestmark = pytest.mark.usefixtures("storage_configured")


def same_weights(left: Teacher, right: Teacher) -> bool:
    theirs = right.network.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in left.network.state_dict().items())


def test_a_teacher_folder_in_object_storage(
    storage: Storage, place: ObjectAddress, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    for file in (tmp_path / "teacher").iterdir():
        storage.upload(file, place / "teacher" / file.name)
    seen: list[Progress] = []
    fetched = sources.fetch(TeacherSection(source=f"{place}/teacher"), stored=stored, report=seen.append)
    assert same_weights(fetched, tiny_teacher)
    # a folder of ours says itself where its weights come from
    assert fetched.source == f"claimed by the folder: {tiny_teacher.source}"
    assert fetched.info == tiny_teacher.info
    assert (seen[0].stage, seen[0].unit) == ("teacher", "bytes")


def test_a_weights_file_in_object_storage(
    storage: Storage, place: ObjectAddress, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    save_file(tiny_teacher.network.state_dict(), tmp_path / "weights.safetensors")
    digest = storage.upload(tmp_path / "weights.safetensors", place / "weights.safetensors")
    fields = {
        "source": f"{place}/weights.safetensors",
        "architecture": tiny_teacher.info.architecture,
        "arguments": dict(tiny_teacher.info.arguments),
        "input": {"shape": [3, 16, 16], "mean": [0.5, 0.45, 0.4], "std": [0.25, 0.2, 0.3]},
    }
    fetched = sources.fetch(TeacherSection.model_validate({**fields, "sha256": digest}), stored=stored)
    assert same_weights(fetched, tiny_teacher)
    assert (fetched.source, fetched.digest) == (f"{place}/weights.safetensors", digest)
    with pytest.raises(ArtifactError, match="sha256"):
        sources.fetch(TeacherSection.model_validate({**fields, "sha256": "0" * 64}), stored=stored)


def test_a_labelled_test_set_in_object_storage(
    storage: Storage, place: ObjectAddress, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    mine = LabelledImages(images, torch.arange(8) % 4, tiny_teacher.info.class_names)
    datasets.save_labelled(mine, tmp_path / "test.safetensors")
    storage.upload(tmp_path / "test.safetensors", place / "test.safetensors")
    section = EvaluationSection(data=f"{place}/test.safetensors", max_images=4)

    fetched = datasets.fetch(section, info=tiny_teacher.info, stored=stored)

    assert fetched is not None
    assert torch.equal(fetched.images, images[datasets.evenly_spread(mine.labels, 4)])
    assert fetched.source == section.data
    assert datasets.fetch(EvaluationSection(), info=tiny_teacher.info, stored=stored) is None


def test_a_refusal_speaks_of_where_the_images_lie(
    storage: Storage, place: ObjectAddress, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    for name in tiny_teacher.info.class_names:
        (tmp_path / "set" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "set" / "val" / name / "a.png")
    storage.upload_folder(tmp_path / "set", place / "set")
    with pytest.raises(DatasetError) as refused:
        datasets.fetch(EvaluationSection(data=f"{place}/set"), info=tiny_teacher.info, stored=stored)
    assert refused.value.what == f"{place}/set holds val, and the class folders lie below"
    assert refused.value.now == f"give {place}/set/val"


def test_nothing_there(place: ObjectAddress) -> None:
    with pytest.raises(StorageError, match="neither an object of that name nor one below it"):
        sources.fetch(TeacherSection(source=f"{place}/teacher"), stored=stored)


def test_no_storage_configured(place: ObjectAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESPROUT_STORAGE_ENDPOINT")
    with pytest.raises(StorageError, match="no object storage is configured"):
        sources.fetch(TeacherSection(source=f"{place}/teacher"), stored=stored)
