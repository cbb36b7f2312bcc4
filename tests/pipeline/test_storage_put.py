"""`resprout storage put`: what is stored is what a stage fetches, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from resprout import artifacts, datasets, storage
from resprout.errors import StorageAwayError, StorageError
from resprout.recipe import EvaluationSection
from resprout.types import Teacher

pytestmark = pytest.mark.usefixtures("storage_configured")


def put(path: Path, address: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["storage", "put", str(path), address])
    return result.exit_code, result.output


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"s3://resprout/tests/{tmp_path.name}/teacher"


def test_a_teachers_folder_comes_back_as_it_was(tiny_teacher: Teacher, tmp_path: Path, address: str) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")

    code, output = put(tmp_path / "teacher", address)
    fetched = storage.stored(address, tmp_path / "fetched", lambda progress: None)

    assert code == 0, output
    assert artifacts.digest_of(fetched) == artifacts.digest_of(tmp_path / "teacher")


def test_a_file_comes_back_as_it_was(tmp_path: Path, address: str) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(bytes(range(256)) * 10)

    code, output = put(file, f"{address}.safetensors")
    fetched = storage.stored(f"{address}.safetensors", tmp_path / "fetched", lambda progress: None)

    assert code == 0, output
    assert fetched.read_bytes() == file.read_bytes()
    code, output = put(Path(__file__), f"{address}.safetensors")
    assert (code, "nothing is overwritten" in output) == (1, True)


def test_nothing_is_overwritten(tmp_path: Path, address: str) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)

    first, _ = put(tmp_path / "first", address)
    second, output = put(tmp_path / "second", address)

    assert (first, second) == (0, 1)
    assert "nothing is overwritten" in output
    fetched = storage.stored(address, tmp_path / "fetched", lambda progress: None)
    assert (fetched / "file").read_text() == "first"


def test_half_a_test_set_is_not_judged_on(
    tiny_teacher: Teacher, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in tiny_teacher.info.class_names:
        for number in range(2):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16)).save(tmp_path / "set" / name / f"{number}.png")
    upload, left = storage.Storage.upload, iter(range(3))

    def cut_off(*given: Any, **how: Any) -> str:
        if next(left, None) is None:
            raise StorageAwayError("the machine went to sleep")
        return upload(*given, **how)

    with monkeypatch.context() as patch:
        patch.setattr(storage.Storage, "upload", cut_off)
        assert put(tmp_path / "set", address)[0] == 1
    section = EvaluationSection(data=address)

    with pytest.raises(StorageError, match="is not whole"):
        datasets.fetch(section, info=tiny_teacher.info, stored=storage.stored)
    assert put(tmp_path / "set", address)[0] == 0
    images = datasets.fetch(section, info=tiny_teacher.info, stored=storage.stored)
    assert images is not None
    assert len(images.labels) == 8


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        ("nowhere", "s3://resprout/tests/x", "does not exist"),
        (".", "s3://no-such-bucket/x", "the bucket does not exist"),
        (".", "resprout/tests/x", "s3://"),
        (".", "s3://resprout", "names a bucket alone"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, path: str, to: str, said: str) -> None:
    code, output = put(tmp_path / path, to)

    assert code == 1
    assert said in output
