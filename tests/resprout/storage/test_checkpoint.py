"""What a stage keeps in object storage is kept beside its work: it goes on there, and never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from pipeline.embedded_storage import BUCKET, Server
from resprout.checkpoints import Checkpoint, FolderCheckpoint
from resprout.errors import StorageError
from resprout.recipe import DistillationSection
from resprout.recovery import Recovery, recover
from resprout.sealing import State
from resprout.storage import ObjectAddress, Storage, StorageSettings
from resprout.storage.beside import Beside
from resprout.storage.checkpoint import ObjectCheckpoint, checkpoint_at
from resprout.storage.client import ObjectFacts
from resprout.storage.keys import CHECKPOINT_KEY_FILE, checkpoint_key
from resprout.storage.settings import required
from resprout.types import DreamSet, Student, Teacher

PLACE = ObjectAddress(BUCKET, "checkpoints")
KEY = b"a key of this run's own, 32 long"
Said = Callable[[], list[str]]
T = TypeVar("T")


def state(number: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return {"a": torch.full((2,), number)}, {"epoch": int(number)}


def kept_in(checkpoint: Checkpoint, key: str) -> State | None:
    return checkpoint.load(key, lambda found: found, at_most=1 << 10)


def number_in(checkpoint: Checkpoint, key: str) -> float | None:
    found = kept_in(checkpoint, key)
    return float(found[0]["a"][0]) if found else None


def hasty(settings: StorageSettings) -> Storage:
    return Storage(settings.model_copy(update={"retries": 0}))


class Pause:
    """Between two tries of the checkpoint's thread to reach a server, until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.over = threading.Event(), threading.Event()

    def __call__(self, seconds: float) -> None:
        self.reached.set()
        assert self.over.wait(60)


class _HandedOver:
    """A stage's checkpoint until it is killed, then that of the stage that another machine starts."""

    def __init__(self, first: ObjectCheckpoint, second: ObjectCheckpoint) -> None:
        self._first, self._second = first, second

    def load(self, key: str, made_of: Callable[[State], T], *, at_most: int) -> T | None:
        self._first.settle()
        return self._second.load(key, made_of, at_most=at_most)

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        self._second.save(key, tensors, about)

    @property
    def resumed(self) -> tuple[str, ...]:
        return self._second.resumed


def test_recovery_goes_on_from_a_checkpoint_in_object_storage(
    storage: Storage,
    place: ObjectAddress,
    tiny_teacher: Teacher,
    tiny_student: Student,
    tiny_dreams: DreamSet,
    recovered_in_two_goes: Callable[..., tuple[Recovery, list[int]]],
) -> None:
    section = DistillationSection(epochs=4, batch_size=32, start="repaired", precision="float32")
    whole = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0).recovered.network.state_dict()
    killed, on_another_machine = ObjectCheckpoint(storage, place, KEY), ObjectCheckpoint(storage, place, KEY)
    resumed, seen = recovered_in_two_goes(section, killed, _HandedOver(killed, on_another_machine))
    assert seen == [2, 3, 4]
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.recovered.network.state_dict().items())
    on_another_machine.clear()
    assert list(storage.list(place)) == []


def test_a_checkpoint_is_the_same_in_a_folder_and_in_object_storage(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    tensors, about = {"a": torch.arange(6.0).view(2, 3)}, {"epoch": 3}
    stored = ObjectCheckpoint(storage, place, KEY)
    kept: list[Checkpoint] = [FolderCheckpoint(tmp_path), stored]
    for checkpoint in kept:
        assert kept_in(checkpoint, "key") is None
        checkpoint.save("key", tensors, about)
    early = kept_in(stored, "key")
    stored.settle()
    loaded = [kept_in(kept[0], "key"), early, kept_in(ObjectCheckpoint(storage, place, KEY), "key")]
    assert all(found is not None and torch.equal(found[0]["a"], tensors["a"]) for found in loaded)
    assert [found[1] for found in loaded if found] == [about] * 3


@pytest.mark.usefixtures("storage_configured")
def test_a_stages_checkpoints_go_when_it_ends_well(storage: Storage, place: ObjectAddress) -> None:
    of_another = ObjectCheckpoint(storage, place, KEY)
    of_another.save("of another", *state(0))
    of_another.settle()

    def stage(fails: bool) -> None:
        with checkpoint_at(str(place)) as checkpoint:
            assert checkpoint is not None
            for epoch in range(20):
                checkpoint.save("state", *state(epoch))
            if fails:
                raise _KilledError

    with pytest.raises(_KilledError):
        stage(fails=True)
    again = ObjectCheckpoint(storage, place, checkpoint_key(required()))
    assert number_in(again, "state") == 19, "what was saved last"
    assert len(list(storage.list(place))) == 2
    stage(fails=False)
    assert [found.address for found in storage.list(place)] == [place / "of another.checkpoint"]


class _KilledError(Exception):
    pass


def test_a_folders_checkpoints_stay_for_the_next_run(tmp_path: Path) -> None:
    with checkpoint_at(str(tmp_path)) as checkpoint:
        assert checkpoint is not None
        checkpoint.save("state", *state(1))
        assert number_in(FolderCheckpoint(tmp_path), "state") == 1, "at once: it is this machine's disk"
    with checkpoint_at("") as checkpoint:
        assert checkpoint is None


def test_saving_waits_for_nobody_and_what_was_saved_last_is_what_is_kept(own_server: Server, said: Said) -> None:
    pause = Pause()
    checkpoint = ObjectCheckpoint(Storage(own_server.settings, sleep=pause), PLACE, KEY)
    own_server.stop()
    checkpoint.save("state", *state(1))
    assert pause.reached.wait(60)
    for epoch in (2, 3):
        checkpoint.save("state", *state(epoch))
    assert number_in(checkpoint, "state") == 3
    own_server.start()
    pause.over.set()
    checkpoint.settle()

    assert number_in(ObjectCheckpoint(hasty(own_server.settings), PLACE, KEY), "state") == 3
    assert said() == []


def test_what_is_handed_over_is_a_copy(own_server: Server) -> None:
    pause = Pause()
    checkpoint = ObjectCheckpoint(Storage(own_server.settings, sleep=pause), PLACE, KEY)
    own_server.stop()
    tensors, about = state(1)
    checkpoint.save("state", tensors, about)
    tensors["a"].fill_(99)
    about["epoch"] = 99
    assert pause.reached.wait(60)
    own_server.start()
    pause.over.set()
    checkpoint.settle()

    found = kept_in(ObjectCheckpoint(hasty(own_server.settings), PLACE, KEY), "state")
    assert found is not None
    assert (float(found[0]["a"][0]), found[1]) == (1, {"epoch": 1})


def test_a_store_that_is_gone_during_the_work_costs_a_line_and_no_more(own_server: Server, said: Said) -> None:
    checkpoint = ObjectCheckpoint(hasty(own_server.settings), PLACE, KEY)
    checkpoint.check()
    own_server.stop()
    for epoch in range(3):
        checkpoint.save(f"group-{epoch}", *state(epoch))
    checkpoint.settle()
    (line,) = said()
    assert line.startswith(f"storage: the state of this stage is not kept: cannot write {PLACE}/group-0.checkpoint")
    assert "does not answer" in line

    own_server.start()
    checkpoint.save("group-3", *state(3))
    checkpoint.settle()
    assert said()[1:] == [f"storage: the state of this stage is kept again in {PLACE}"]
    assert number_in(ObjectCheckpoint(hasty(own_server.settings), PLACE, KEY), "group-3") == 3


class _Emptied(Storage):
    """Another stage removes what it kept, just after one has seen that it is there."""

    def facts(self, address: ObjectAddress) -> ObjectFacts | None:
        found = super().facts(address)
        self.remove(address)
        return found


def replace_by(storage: Storage, address: ObjectAddress, content: bytes, folder: Path) -> None:
    (folder / "planted").write_bytes(content)
    storage.upload(folder / "planted", address)


def test_whatever_is_wrong_with_an_object_it_counts_as_none_and_the_stage_goes_on(
    storage: Storage,
    server: Server,
    place: ObjectAddress,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = place / "state.checkpoint"

    def kept() -> None:
        checkpoint = ObjectCheckpoint(storage, place, KEY)
        checkpoint.save("state", *state(1))
        checkpoint.settle()

    def looked_for(key: bytes = KEY, at: Storage = storage) -> float | None:
        checkpoint = ObjectCheckpoint(at, place, key)
        found = number_in(checkpoint, "state")
        assert bool(checkpoint.resumed) == (found is not None)
        return found

    kept()
    assert looked_for() == 1
    assert looked_for(b"of another run") is None
    (sealed := tmp_path / "sealed").write_bytes(b"")
    storage.download(address, sealed)
    content = sealed.read_bytes()
    for planted in (b"", b"not sealed", content[:-1], content[:-1] + b"x", bytes(len(content))):
        replace_by(storage, address, planted, tmp_path)
        assert looked_for() is None
    kept()
    assert looked_for() == 1, "what does not count is overwritten"
    assert looked_for(at=_Emptied(server.settings)) is None
    kept()
    monkeypatch.setattr("resprout.storage.checkpoint.BESIDE_TENSORS", -1 << 9)
    monkeypatch.setattr(Storage, "download", lambda *_: pytest.fail("it would fill a disk"))
    assert looked_for() is None
    reasons = [record.getMessage().split(": ")[2] for record in caplog.records if "does not count" in record.message]
    assert len(reasons) == 8
    assert reasons[-1] == "it is larger than such a state can be; its work is done again"


def test_the_key_of_a_run_goes_before_that_of_the_secret_and_no_server_sees_either(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CHECKPOINT_KEY_FILE, raising=False)
    for name, key in zip(("accesskey", "secretkey"), server.settings.credentials(), strict=False):
        (tmp_path / name).write_text(str(key))
    mounted = server.settings.model_copy(update={"secrets": tmp_path})
    derived = checkpoint_key(mounted)
    assert derived == checkpoint_key(server.settings)
    assert derived not in (b"", server.settings.credentials()[1].encode())

    (tmp_path / "checkpointkey").write_text("a" * 64 + "\n")
    given = checkpoint_key(mounted)
    assert given != derived
    (tmp_path / "checkpointkey").write_text("short")
    with pytest.raises(StorageError, match="holds 5 characters") as refused:
        checkpoint_key(mounted)
    assert "openssl rand -hex 32" in str(refused.value)

    monkeypatch.setenv(CHECKPOINT_KEY_FILE, str(tmp_path / "own"))
    own = checkpoint_key(mounted)
    assert own == checkpoint_key(server.settings) == (tmp_path / "own").read_bytes()
    assert own not in (given, derived)


def test_a_full_store_costs_a_line_and_no_more(full: Server, said: Said) -> None:
    checkpoint = ObjectCheckpoint(hasty(full.settings), ObjectAddress("second", ""), KEY)
    checkpoint.check()
    assert kept_in(checkpoint, "state") is None
    checkpoint.save("state", *state(1))
    checkpoint.settle()
    checkpoint.clear()

    before, during = said()
    assert "has no room for it" in before
    assert "the state of this stage is not kept: cannot write s3://second/state.checkpoint" in during


def configure(monkeypatch: pytest.MonkeyPatch, settings: StorageSettings, **others: str) -> None:
    access_key, secret_key, _ = settings.credentials()
    fields = {"ENDPOINT": settings.endpoint, "ACCESS_KEY": access_key, "SECRET_KEY": secret_key, "RETRIES": "0"}
    for name, value in {**fields, **others}.items():
        monkeypatch.setenv(f"RESPROUT_STORAGE_{name}", value)


def test_a_stage_whose_store_is_away_from_beginning_to_end_ends_well(
    own_server: Server, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    configure(monkeypatch, own_server.settings)
    own_server.stop()

    with checkpoint_at(str(PLACE)) as checkpoint:
        assert checkpoint is not None
        assert [kept_in(checkpoint, f"group-{number}") for number in range(3)] == [None] * 3
        checkpoint.save("group-0", *state(0))

    assert any("nothing is kept there while that is so" in line for line in said())
    assert any("the state of this stage stays in" in line or "is not kept" in line for line in said())
    assert len(said()) <= 3


def test_a_store_that_goes_away_before_the_end_does_not_fail_the_stage(
    own_server: Server, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    configure(monkeypatch, own_server.settings)

    with checkpoint_at(str(PLACE)) as checkpoint:
        assert isinstance(checkpoint, ObjectCheckpoint)
        checkpoint.save("state", *state(0))
        checkpoint.settle()
        own_server.stop()

    (line,) = said()
    assert line.startswith(f"storage: the state of this stage stays in {PLACE}: cannot remove ")


@pytest.mark.parametrize(
    ("place", "others", "why"),
    [
        ("s3://not-there/a", {}, "the bucket does not exist"),
        (str(PLACE), {"SECRET_KEY": "wrong-secret"}, "the secret key is wrong"),
        (str(PLACE), {"ACCESS_KEY": "nobody"}, "does not know this access key"),
    ],
)
def test_what_will_never_do_is_told_before_the_work(
    server: Server, monkeypatch: pytest.MonkeyPatch, place: str, others: dict[str, str], why: str
) -> None:
    configure(monkeypatch, server.settings, **others)
    with pytest.raises(StorageError, match=why), checkpoint_at(place):
        pytest.fail("the work began")


def test_the_end_of_a_stage_waits_for_a_while_alone(own_server: Server, said: Said) -> None:
    pause = Pause()
    checkpoint = ObjectCheckpoint(Storage(own_server.settings, sleep=pause), PLACE, KEY, patience_seconds=0)
    own_server.stop()
    checkpoint.save("state", *state(0))
    assert pause.reached.wait(60)

    checkpoint.settle()
    checkpoint.clear()

    assert [line.split(":")[1].split(" in ")[0] for line in said()] == [
        " the last state of this stage is not",
        " the state of this stage stays",
    ]
    own_server.start()
    pause.over.set()


def test_no_value_is_lost_however_the_threads_run() -> None:
    written: list[tuple[str, int]] = []
    beside: Beside[int] = Beside(lambda name, value: written.append((name, value)))

    for value in range(2_000):
        beside.hand(f"name-{value % 3}", value)
    assert beside.wait(60)
    last = dict(written)
    assert last == {f"name-{value % 3}": value for value in range(1_997, 2_000)}
    for name in last:
        values = [value for other, value in written if other == name]
        assert values == sorted(values), "nothing older after something newer"

    for value in range(200):  # each finds the thread at its end, or ended
        beside.hand("name", value)
        assert beside.wait(60)
    assert [value for name, value in written if name == "name"] == list(range(200))
