"""What is kept of long work goes into a result only where the same run kept it, and leaves a trace where it does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from resprout.checkpoints import FolderCheckpoint
from resprout.keys import KEY_FILE, own_key
from resprout.recipe import DeepInversionSection, DistillationSection, PaperSynthesisSection, ReconstructionSection
from resprout.recovery import Recovery, recover
from resprout.sealing import State
from resprout.statistics import extract
from resprout.synthesis import synthesize
from resprout.types import DreamSet, Student, Teacher

DREAMS = DeepInversionSection(num_images=8, num_held_out=8, group_size=8, iterations=2, precision="float32")
TRAINING = DistillationSection(epochs=2, batch_size=96, start="repaired", precision="float32")
KEY, ANOTHER_KEY = b"k" * 32, b"l" * 32
AT_MOST = 1 << 20


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records if record.name == "resprout.checkpoints"]


def save(folder: Path, key: str = "key", number: float = 1, sealed_with: bytes = KEY) -> Path:
    FolderCheckpoint(folder, sealed_with).save(key, {"a": torch.full((4,), number)}, {"epoch": 1})
    return folder / f"{key}.checkpoint"


def load(checkpoint: FolderCheckpoint, key: str = "key") -> float | None:
    found = checkpoint.load(key, lambda state: state, at_most=AT_MOST)
    return float(found[0]["a"][0]) if found else None


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_one_changed_byte_anywhere_makes_it_none(tmp_path: Path, told: Callable[[], list[str]]) -> None:
    size = save(tmp_path).stat().st_size
    for at in range(size):
        flip(save(tmp_path), at)
        checkpoint = FolderCheckpoint(tmp_path, KEY)
        assert load(checkpoint) is None, at
        assert checkpoint.resumed == ()
    assert set(told()) == {
        "checkpoints: key does not count: it was changed, or kept by another run; its work is done again"
    }


def plant_another_runs(path: Path) -> None:
    save(path.parent, sealed_with=ANOTHER_KEY)


def plant_another_groups(path: Path) -> None:
    os.replace(save(path.parent, "another"), path)


def plant_no_seal(path: Path) -> None:
    save_file({"a": torch.ones(4)}, path, metadata={"about": "{}"})


def plant_a_large_one(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def plant_a_folder(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


def plant_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def plant_a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    "plant",
    [
        plant_another_runs,
        plant_another_groups,
        plant_no_seal,
        plant_a_large_one,
        plant_a_folder,
        plant_a_pipe,
        plant_a_link_to_itself,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b" "),
    ],
)
def test_what_this_run_did_not_keep_counts_as_none_and_is_overwritten(
    tmp_path: Path, plant: Callable[[Path], None], told: Callable[[], list[str]]
) -> None:
    path = save(tmp_path)
    plant(path)
    checkpoint = FolderCheckpoint(tmp_path, KEY)
    assert load(checkpoint) is None
    assert checkpoint.resumed == ()
    assert len(told()) == 1
    save(tmp_path, number=2)
    assert load(FolderCheckpoint(tmp_path, KEY)) == 2


def test_only_what_an_earlier_process_kept_leaves_a_trace_and_what_went_into_that_too(tmp_path: Path) -> None:
    first = FolderCheckpoint(tmp_path, KEY)
    first.save("one", {"a": torch.zeros(4)}, {})
    assert load(first, "one") == 0
    assert first.resumed == ()

    digests = [hashlib.sha256((tmp_path / "one.checkpoint").read_bytes()).hexdigest()]
    second = FolderCheckpoint(tmp_path, KEY)
    assert load(second, "one") == 0
    assert list(second.resumed) == digests
    second.save("two", {"a": torch.ones(4)}, {})
    digests.append(hashlib.sha256((tmp_path / "two.checkpoint").read_bytes()).hexdigest())

    third = FolderCheckpoint(tmp_path, KEY)
    assert load(third, "two") == 1
    assert list(third.resumed) == sorted(digests)


# The stages

Stage = Callable[[FolderCheckpoint | None], Any]


@dataclass
class Kept:
    """A stage that ended, and what it kept."""

    run: Callable[[FolderCheckpoint | None], list[Tensor]]
    folder: Path

    def state(self) -> tuple[str, State]:
        path = max(self.folder.glob("*.checkpoint"))
        found = FolderCheckpoint(self.folder).load(path.stem, lambda state: state, at_most=AT_MOST)
        assert found is not None
        return path.stem, found

    def again(self) -> tuple[list[Tensor], tuple[str, ...]]:
        checkpoint = FolderCheckpoint(self.folder)
        return self.run(checkpoint), checkpoint.resumed


@pytest.fixture(params=["synthesis", "distillation", "reconstruction"])
def kept(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_teacher: Teacher,
    tiny_student: Student,
    tiny_dreams: DreamSet,
) -> Iterator[Kept]:
    def dream(checkpoint: FolderCheckpoint | None) -> list[Tensor]:
        made = synthesize(tiny_teacher, extract(tiny_teacher), DREAMS, seed=0, checkpoint=checkpoint)
        return [made.images, made.targets, *(curve for _, curve in sorted(made.curves.items()))]

    def train(checkpoint: FolderCheckpoint | None) -> list[Tensor]:
        section = TRAINING if request.param == "distillation" else ReconstructionSection()
        made: Recovery = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0, checkpoint=checkpoint)
        return [*made.recovered.network.state_dict().values(), *(curve for _, curve in sorted(made.curves.items()))]

    stage = Kept(dream if request.param == "synthesis" else train, tmp_path)
    stage.run(FolderCheckpoint(tmp_path))
    return stage


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def wrong_states(tensors: dict[str, Tensor], about: dict[str, Any]) -> Iterator[tuple[str, State]]:
    """A state as it must not be put to use: sealed all the same, as by a mistake of ours."""
    for name in sorted(tensors)[::7]:
        tensor = tensors[name]
        yield f"{name} lacks", ({key: value for key, value in tensors.items() if key != name}, about)
        yield f"{name} long", ({**tensors, name: torch.cat([tensor.flatten()] * 2)}, about)
        yield f"{name} dtype", ({**tensors, name: tensor.to(torch.complex64)}, about)
        if tensor.is_floating_point():
            yield f"{name} NaN", ({**tensors, name: torch.full_like(tensor, torch.nan)}, about)
    yield "another tensor", ({**tensors, "optimizer.999.step": torch.zeros(())}, about)
    yield "nothing", ({}, {})
    for field in about:
        for value in (None, [1], {"x": ["y"]}, float("nan"), *([-1, 0, 3, 1.5] if field == "epoch" else [])):
            yield f"{field} {value}", (tensors, {**about, field: value})


def test_a_state_of_another_shape_counts_as_none(kept: Kept, told: Callable[[], list[str]]) -> None:
    fresh = kept.run(None)
    key, (tensors, about) = kept.state()
    made, resumed = kept.again()
    assert equal(made, fresh)
    assert resumed != (), "the state as it is was used"
    wrong = [*wrong_states(tensors, about)]
    for what, state in wrong[:: 1 + len(wrong) // 20]:
        FolderCheckpoint(kept.folder).save(key, *state)
        before = hashlib.sha256((kept.folder / f"{key}.checkpoint").read_bytes()).hexdigest()
        made, resumed = kept.again()
        assert equal(made, fresh), what
        assert before not in resumed, what
        assert told(), what


@pytest.mark.parametrize(
    "section",
    [
        DREAMS.model_copy(update={"target_loss": "entropy", "total_variation_weight": 0.1, "l2_weight": 0.1}),
        DREAMS.model_copy(update={"total_variation_weight": 0.0, "l2_weight": 0.0}),
        PaperSynthesisSection(num_images=2, num_held_out=0),
    ],
)
def test_dreams_go_on_whatever_their_losses_are(tmp_path: Path, tiny_teacher: Teacher, section: Any) -> None:
    statistics = extract(tiny_teacher)
    first, second = FolderCheckpoint(tmp_path), FolderCheckpoint(tmp_path)
    for checkpoint in (first, second):
        synthesize(tiny_teacher, statistics, section, seed=0, checkpoint=checkpoint)
    assert len(first.resumed) == 0
    assert len(second.resumed) == len(list(tmp_path.glob("*.checkpoint")))


def test_what_others_put_there_never_reaches_a_result(kept: Kept) -> None:
    fresh = kept.run(None)
    key, (tensors, about) = kept.state()
    changed = {
        name: tensor + 0.125 if tensor.is_floating_point() and name.startswith(("images", "best.", "layer")) else tensor
        for name, tensor in tensors.items()
    }
    for path in kept.folder.glob("*.checkpoint"):
        path.unlink()
    FolderCheckpoint(kept.folder, ANOTHER_KEY).save(key, changed, about)
    made, resumed = kept.again()
    assert equal(made, fresh)
    assert resumed == ()


# The key


def test_a_key_stays_until_others_could_have_seen_or_written_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / KEY_FILE
    key = own_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert own_key(path) == key
    for mode in (0o640, 0o604, 0o660, 0o620, 0o644):
        path.chmod(mode)
        replaced = own_key(path)
        assert replaced != key
        assert path.stat().st_mode & 0o777 == 0o600
        key = replaced
    for content in (b"", b"short", key + b"longer"):
        path.write_bytes(content)
        assert own_key(path) not in (content, key)
    path.unlink()
    assert own_key(path) != key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_that_another_user_put_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(b"p" * 32)
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    assert own_key(path, others=(12345,)) == b"p" * 32
    assert own_key(path) != b"p" * 32
    assert path.stat().st_uid == 0
