"""A weights file takes no more memory than it holds, and no longer than its size."""

from __future__ import annotations

import copy
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resprout import artifacts
from resprout.errors import ArtifactError, UnsupportedModelError
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import fetch
from resprout.sources.contents import entries_of
from resprout.sources.files import read_weights
from resprout.types import Teacher

INPUT = InputSection(shape=(3, 16, 16), mean=(0.5, 0.45, 0.4), std=(0.25, 0.2, 0.3))
NETWORK: dict[str, Any] = {"architecture": "cifar_resnet8", "arguments": {"width": 8}, "input": INPUT}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def rezipped(path: Path, change: Callable[[zipfile.ZipInfo], None]) -> Path:
    """The same archive, each member's entry changed before it is written."""
    with zipfile.ZipFile(path) as read:
        members = [(entry, read.read(entry)) for entry in read.infolist()]
    with zipfile.ZipFile(path, "w") as written:
        for entry, data in members:
            change(entry)
            written.writestr(entry, data)
    return path


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = saved({"weight": torch.zeros(1 << 20)}, tmp_path / "net.pt")
    rezipped(path, lambda entry: setattr(entry, "compress_type", zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 1 << 15
    with pytest.raises(UnsupportedModelError, match="is compressed") as refusal:
        read_weights(path, "net.pt")
    assert refusal.value.now


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = saved({"weight": torch.zeros(1 << 16)}, tmp_path / "net.pt")
    with zipfile.ZipFile(path, "a") as archive:
        (large,) = [entry for entry in archive.infolist() if entry.file_size == 1 << 18]
        for number in range(9):
            twin = copy.copy(large)
            twin.filename = f"twin{number}"
            archive.filelist.append(twin)
        archive._didModify = True
    with pytest.raises(UnsupportedModelError, match="the same bytes several times"):
        read_weights(path, "net.pt")


def test_an_archive_with_a_comment_is_refused_since_another_may_stand_in_it(tmp_path: Path) -> None:
    path = saved({"weight": torch.zeros(4)}, tmp_path / "net.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(UnsupportedModelError, match="comment"):
        read_weights(path, "net.pt")


def sparse_rows() -> Tensor:
    nothing = torch.zeros(0, dtype=torch.int64)
    return torch.sparse_csr_tensor(torch.zeros(2, dtype=torch.int64), nothing, [], (1, 1 << 30))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(2_000_000_000),
        lambda: torch.zeros(64).unfold(0, 32, 1),
        lambda: torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (1 << 20, 1 << 20)),
        sparse_rows,
    ],
    ids=["expanded", "overlapping", "sparse", "sparse rows"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_tensor_that_says_more_than_is_stored_of_it_is_refused(tmp_path: Path, make: Callable[[], Tensor]) -> None:
    path = saved({"weight": make()}, tmp_path / "net.pt")
    assert path.stat().st_size < 1 << 16
    with pytest.raises(UnsupportedModelError, match="of which the file stores") as refusal:
        read_weights(path, "net.pt")
    assert "weight" in refusal.value.what


def test_one_storage_under_very_many_names_is_refused(tmp_path: Path) -> None:
    tensor = torch.zeros(1 << 16)
    path = saved({f"layer{number}.weight": tensor for number in range(40)}, tmp_path / "net.pt")
    with pytest.raises(UnsupportedModelError, match=r"the tensors of 'net\.pt' are"):
        read_weights(path, "net.pt")


def test_sparse_tied_and_aliased_weights_load_as_before(tmp_path: Path) -> None:
    dense = torch.zeros(64, 64)
    dense[::4, ::8] = 1
    content = {"a": dense.to_sparse(), "b": torch.ones(8), "empty": torch.zeros(16).to_sparse()}
    content["tied"] = content["b"]
    read, _ = read_weights(saved({"model": content, "ema": content}, tmp_path / "net.pt"), "net.pt")
    found = entries_of(read)
    assert torch.equal(found["model.a"].tensor, dense)
    assert torch.equal(found["ema.tied"].tensor, torch.ones(8))


def test_lists_that_hold_each_other_end() -> None:
    content: dict[str, Any] = {}
    for number in range(30):
        content[str(number)] = content
    with pytest.raises(UnsupportedModelError, match="hold each other"):
        entries_of(content)


def test_more_classes_than_numbers_are_refused_before_a_network_is_built(tmp_path: Path, tiny_teacher: Teacher) -> None:
    path = saved(tiny_teacher.network.state_dict(), tmp_path / "net.pt")
    with pytest.raises(UnsupportedModelError, match="2,000,000,000 classes") as refusal:
        fetch(TeacherSection(source=str(path), num_classes=2_000_000_000, **NETWORK))
    assert "teacher.num_classes" in refusal.value.now


def test_classes_are_not_counted_on_tensors_without_values(tmp_path: Path, tiny_teacher: Teacher) -> None:
    state = tiny_teacher.network.state_dict()
    state["fc.weight"] = torch.empty(2_000_000_000, state["fc.weight"].shape[1], device="meta")
    state["fc.bias"] = torch.empty(2_000_000_000, device="meta")
    with pytest.raises(UnsupportedModelError, match="without values"):
        fetch(TeacherSection(source=str(saved(state, tmp_path / "net.pt")), **NETWORK))


def test_what_a_pickle_hangs_on_a_tensor_takes_the_place_of_nothing(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(4))
    parameter.numel = parameter.untyped_storage = parameter.detach = "mine"
    read, _ = read_weights(saved({"weight": parameter}, tmp_path / "net.pt"), "net.pt")
    assert torch.equal(entries_of(read)["weight"].tensor, torch.ones(4))


def test_another_file_is_refused_without_its_digest(tmp_path: Path) -> None:
    path = saved({"weight": torch.ones(4)}, tmp_path / "net.pt")
    with pytest.raises(ArtifactError) as refusal:
        read_weights(path, "net.pt", sha256="0" * 64)
    assert artifacts.sha256_of(path)[:8] not in str(refusal.value)


def test_a_pipe_in_the_place_of_weights_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pt")
    with pytest.raises(ArtifactError, match="is no plain file"):
        read_weights(tmp_path / "net.pt", "net.pt")
