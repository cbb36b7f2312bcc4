"""What happens when a disk, or a limit, is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resprout import artifacts
from resprout.artifacts.folder import save_artifact
from resprout.errors import ArtifactError
from resprout.files import write_atomically

LIMIT = 64 * 1024


@pytest.fixture
def _files_of_64_kilobytes_at_most() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save(folder: Path, count: int) -> None:
    save_artifact(folder / "dreams", "dreams", tensors={"dreams": {"images": torch.zeros(count)}})


@pytest.mark.usefixtures("_files_of_64_kilobytes_at_most")
def test_an_artifact_that_does_not_fit_leaves_the_one_before_it(tmp_path: Path) -> None:
    save(tmp_path, 10)
    before = artifacts.digest_of(tmp_path / "dreams")
    with pytest.raises(ArtifactError, match=r"there is no room for .*dreams") as caught:
        save(tmp_path, LIMIT)
    assert "run the same again" in caught.value.now
    assert artifacts.digest_of(tmp_path / "dreams") == before
    assert [path.name for path in tmp_path.iterdir()] == ["dreams"]


@pytest.mark.usefixtures("_files_of_64_kilobytes_at_most")
def test_a_file_that_does_not_fit_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ArtifactError, match=r"there is no room for .*file"), write_atomically(path) as unfinished:
        unfinished.write_bytes(bytes(2 * LIMIT))
    assert path.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_failure_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "file"):
        (tmp_path / "nowhere").read_text()
