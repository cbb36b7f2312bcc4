"""Files in a folder that others may write in, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resprout import artifacts
from resprout.datasets import save_labelled
from resprout.errors import ArtifactError
from resprout.files import appended_to, opened, refuse_links_of_others, sha256_of, write_atomically
from resprout.types import LabelledImages, Teacher


@pytest.fixture(params=[0o077, 0o027, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_is_written_lets_in_whom_the_umask_lets_in(umask: int, tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    images = LabelledImages(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a", "b"))
    save_labelled(images, tmp_path / "set.safetensors")
    with write_atomically(tmp_path / "text") as path:
        path.write_text("it")
    folder, *files = [tmp_path / "teacher", *(tmp_path / "teacher").iterdir(), tmp_path / "set.safetensors"]
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in [*files, tmp_path / "text"]} == {0o666 & ~umask}


def test_a_link_at_a_name_that_could_be_guessed_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(victim)
    with write_atomically(tmp_path / "file") as path:
        path.write_text("theirs")
    assert victim.read_text() == "mine"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file").symlink_to(victim)
    with write_atomically(tmp_path / "file") as path:
        path.write_text("theirs")
    assert (victim.read_text(), (tmp_path / "file").read_text()) == ("mine", "theirs")


@pytest.mark.parametrize("dangling", [False, True])
def test_a_log_is_never_written_through_a_link(tmp_path: Path, dangling: bool) -> None:
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_text("mine")
    (tmp_path / "log.txt").symlink_to(victim)
    with pytest.raises(ArtifactError, match=r"log\.txt is no plain file"), appended_to(tmp_path / "log.txt") as log:
        log.write("theirs")
    assert victim.read_text() == "mine" if not dangling else not victim.exists()


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    for line in ("one\n", "zwölf\n"):
        with appended_to(tmp_path / "log.txt") as log:
            log.write(line)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "one\nzwölf\n"


def test_pipes_are_neither_waited_for_nor_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="no plain file"), opened(tmp_path / "pipe"):
        pass
    with pytest.raises(ArtifactError, match="no plain file"), appended_to(tmp_path / "pipe"):
        pass
    with pytest.raises(ArtifactError, match="no plain file"):
        sha256_of(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes links that are another's")
def test_a_folder_in_which_somebody_else_put_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to("/nowhere")
    refuse_links_of_others(tmp_path)
    os.chown(tmp_path / "checkpoints", 65534, 65534, follow_symlinks=False)
    with pytest.raises(ArtifactError, match="checkpoints is a link that another user made"):
        refuse_links_of_others(tmp_path)
