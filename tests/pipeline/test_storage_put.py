"""`resprout storage put`: what is stored is what a stage fetches, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from resprout import artifacts, storage
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
