from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded_storage import Server
from resprout import statement
from resprout.artifacts import digest_of, records, save_artifact, sha256_of
from resprout.errors import ArtifactError, StorageAwayError, StorageError
from resprout.recipe import PublishingSection
from resprout.statement import Builder
from resprout.storage import ObjectAddress, Storage, buckets, check_free, fetch, find, publish, published, publishing
from resprout.storage.attesting import fetch_attached
from resprout.storage.buckets import Bucket
from resprout.storage.models import publish_model
from resprout.storage.trial import TRIAL_NAME
from tests.resprout.sealing import resealed
from tests.resprout.storage.gateway import ignoring


def files(folder: Path, text: str = "weights") -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(text)
    (folder / "metrics.json").write_text("{}")
    return {"model/weights.safetensors": folder / "weights", "metrics.json": folder / "metrics.json"}


def test_what_was_published_can_be_found_and_fetched(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    made = publish(storage, place, "resnet", "1.0", files(tmp_path / "in"), about={"top1": 0.9})
    assert find(storage, place, "resnet", "1.0") == made
    assert published(storage, place) == [made]
    assert str(made.address) == f"{place}/resnet/1.0"
    fetch(storage, made, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "weights.safetensors").read_text() == "weights"
    assert made.about == {"top1": 0.9}


def test_a_version_never_changes(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    made = publish(storage, place, "resnet", "1.0", files(tmp_path / "in"), about={})
    with pytest.raises(StorageError, match="is published with other files") as caught:
        publish(storage, place, "resnet", "1.0", files(tmp_path / "other", "retrained"), about={})
    assert "another version" in caught.value.now
    fetch(storage, made, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "weights.safetensors").read_text() == "weights"
    assert publish(storage, place, "resnet", "1.0", files(tmp_path / "in"), about={}) == made, "the same again is fine"


def test_of_two_publishers_at_once_one_wins_and_the_other_is_told(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    barrier = threading.Barrier(2)
    told: list[str] = []

    def publish_own(text: str) -> None:
        own = files(tmp_path / text, text)
        barrier.wait()
        try:
            publish(storage, place, "resnet", "1.0", own, about={})
        except StorageError as error:
            told.append(error.what)

    threads = [threading.Thread(target=publish_own, args=[text]) for text in ("mine", "yours")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert "other files" in told[0]
    fetch(storage, find(storage, place, "resnet", "1.0"), tmp_path / "out")  # checks every digest


def test_what_publishing_would_be_refused_is_refused_before_the_work(
    storage: Storage, full: Server, place: ObjectAddress, tmp_path: Path
) -> None:
    check_free(storage, place, "resnet", "1.0")
    check_free(storage, place, "resnet", None)
    assert [found.address for found in storage.list(place)] == [place / TRIAL_NAME], "a small object, once"

    publish(storage, place, "resnet", "1.0", files(tmp_path / "in"), about={})
    check_free(storage, place, "resnet", "1.1")
    with pytest.raises(StorageError, match=r"publishing.version 1.0 exists"):
        check_free(storage, place, "resnet", "1.0")
    with pytest.raises(StorageError, match="the bucket does not exist"):
        check_free(storage, ObjectAddress("not-there", "models"), "resnet", None)
    with pytest.raises(StorageAwayError, match="has no room for it"):
        check_free(Storage(full.settings).hasty(), ObjectAddress("second", "models"), "resnet", None)


class _KilledError(Exception):
    pass


def test_a_publisher_that_was_killed_comes_back_and_finishes(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    own = files(tmp_path / "in")

    def die(name: str, done: int, total: int) -> None:
        if name.startswith("model"):
            raise _KilledError

    with pytest.raises(_KilledError):
        publish(storage, place, "resnet", "1.0", own, about={}, watch=die)
    assert published(storage, place) == [], "half a version is none"
    with pytest.raises(StorageError, match="is not published"):
        find(storage, place, "resnet", "1.0")
    assert publish(storage, place, "resnet", "1.0", own, about={}) == find(storage, place, "resnet", "1.0")


@pytest.mark.parametrize("killed_at", ["metrics.json", "model/weights.safetensors", "published.json"])
def test_a_publisher_that_died_is_in_nobodys_way(
    storage: Storage, place: ObjectAddress, tmp_path: Path, killed_at: str
) -> None:
    def die(name: str, done: int, total: int) -> None:
        if name == killed_at:
            raise _KilledError

    class Dying(Storage):
        def claim(self, address: ObjectAddress, content: bytes) -> bool:
            die(address.key.rpartition("/")[2], 0, 0)
            return super().claim(address, content)

    dead = files(tmp_path / "dead", "weights that were measured once")
    with pytest.raises(_KilledError):
        publish(Dying(storage._settings), place, "resnet", "1.0", dead, about={}, watch=die)
    made = publish(storage, place, "resnet", "1.0", files(tmp_path / "in"), about={})

    with pytest.raises(StorageError, match="is published with other files"):
        publish(storage, place, "resnet", "1.0", dead, about={})
    assert find(storage, place, "resnet", "1.0") == made
    fetch(storage, made, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "weights.safetensors").read_text() == "weights"


@pytest.fixture
def keeping(storage: Storage) -> ObjectAddress:
    """Where a bucket keeps versions."""
    list(buckets.set_up(storage, (Bucket(name="keeping", keep_days=1),)))
    return ObjectAddress("keeping", "models")


def test_what_was_published_stays_whatever_is_stored_or_removed_later(
    storage: Storage, keeping: ObjectAddress, tmp_path: Path
) -> None:
    made = publish(storage, keeping, "resnet", "1.0", files(tmp_path / "in"), about={"digest": "a" * 64})
    other = publish(storage, keeping, "resnet", "2.0", files(tmp_path / "other", "with a back door"), about={})
    for name in ("published.json", f"{made.folder}/model/weights.safetensors"):
        theirs = (other.address / name.replace(made.folder, other.folder)).key
        content = storage.sdk.get_object(keeping.bucket, theirs).data.replace(b"2.0", b"1.0")
        storage.sdk.put_object(keeping.bucket, (made.address / name).key, BytesIO(content), len(content))
    storage.remove(made.files_at / "metrics.json")

    for _ in range(2):
        assert find(storage, keeping, "resnet", "1.0") == made
        assert published(storage, keeping) == [made, other]
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        fetch(storage, made, tmp_path / "out")
        assert (tmp_path / "out" / "model" / "weights.safetensors").read_text() == "weights"
        storage.remove(made.address / "published.json")
    with pytest.raises(StorageError, match="is published with other files"):
        publish(storage, keeping, "resnet", "1.0", files(tmp_path / "third", "retrained"), about={})
    with pytest.raises(StorageError, match=r"publishing.version 1.0 exists"):
        check_free(storage, keeping, "resnet", "1.0")


def test_nothing_is_published_where_it_could_be_overwritten(tmp_path: Path) -> None:
    place = ObjectAddress("bucket", "models")
    with ignoring() as gateway:
        storage = Storage(gateway.settings)
        with pytest.raises(StorageError, match="it was asked not to") as caught:
            check_free(storage, place, "resnet", None)
        assert "If-None-Match" in caught.value.why
        for text in ("one", "two"):
            with pytest.raises(StorageError, match="it was asked not to"):
                publish(storage, place, "resnet", "1.0", files(tmp_path / text, text), about={})
        assert list(gateway.objects) == [f"models/{TRIAL_NAME}"]


def test_versions_of_earlier_releases_are_still_there(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    digests = {}
    for name, path in files(tmp_path / "in").items():
        digests[name] = storage.upload(path, place / "resnet" / "0.9" / name)
    record = {"schema_version": 1, "name": "resnet", "version": "0.9", "files": digests, "about": {}}
    assert storage.claim(place / "resnet" / "0.9" / "published.json", json.dumps(record).encode())

    (found,) = published(storage, place)
    fetch(storage, found, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "weights.safetensors").read_text() == "weights"


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": {"../escaped": "0" * 64}},
        {"files": {"/etc/passwd": "0" * 64}},
        {"files": {"metrics.json": "abc"}},
        {"files": ["metrics.json"]},
        {"name": "another"},
        {"version": "../1"},
        {"folder": "a/b"},
        {"about": {"metrics": {"recovered.top1": "0.99"}}},
        {"about": {"metrics": {"\x1b]0;owned": 1.0}}},
        {"about": {"digest": "short"}},
        {"about": None},
        {"schema_version": 3},
        {"more": 1},
    ],
    ids=[
        "no files",
        "a file above",
        "a file elsewhere",
        "no digest",
        "a list",
        "another name",
        "another place",
        "a deep folder",
        "text for a figure",
        "control characters",
        "no model",
        "no facts",
        "of later",
        "something more",
    ],
)
def test_one_record_that_is_none_hides_no_other(
    storage: Storage,
    place: ObjectAddress,
    tmp_path: Path,
    said: Callable[[], list[str]],
    change: dict[str, Any],
) -> None:
    made = publish(storage, place, "resnet", "1.0", files(tmp_path / "in"), about={})
    record = json.loads(storage.sdk.get_object(place.bucket, (made.address / "published.json").key).data)
    address = place / "resnet" / "0.9"
    assert storage.claim(address / "published.json", json.dumps({**record, "version": "0.9", **change}).encode())

    assert published(storage, place) == [made]
    assert str(address) in said()[-1]
    with pytest.raises(StorageError, match=r"published\.json"):
        find(storage, place, "resnet", "0.9")
    with pytest.raises(StorageError, match=r"published\.json"):
        publish(storage, place, "resnet", "0.9", files(tmp_path / "in"), about={})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 10**5, b'{"name": 1, "name": 2}', b" " * (2**20 + 1)])
def test_a_record_that_is_no_json_object_is_refused(storage: Storage, place: ObjectAddress, content: bytes) -> None:
    assert storage.claim(place / "resnet" / "1" / "published.json", content)
    with pytest.raises(StorageError, match=r"published\.json"):
        find(storage, place, "resnet", "1")


@pytest.mark.parametrize(("name", "version"), [("", "1"), ("a/b", "1"), ("a", ".."), ("a", "")])
def test_names_that_would_lie_elsewhere_are_refused(
    storage: Storage, place: ObjectAddress, tmp_path: Path, name: str, version: str
) -> None:
    with pytest.raises(StorageError, match="cannot be a published model's"):
        publish(storage, place, name, version, files(tmp_path), about={})


def _weights(folder: Path) -> None:
    (folder / "a").write_text("weights")


def judged(folder: Path, report: str, *, model: Path | None = None) -> dict[str, Any]:
    """What `publish_model` is given of a model that was judged: in `folder`, or the model elsewhere."""
    model = model or folder / "model"
    (folder / "report.html").write_text(report)
    evaluation = save_artifact(
        folder / "evaluation",
        "evaluation",
        inputs=records({"recovered": model}),
        extras=lambda made: (made / "metrics.json").write_text(f'{{"recovered.top1": 0.{len(report)}}}'),
    )
    digests = {"recovered": digest_of(model), "evaluation": evaluation, "report": sha256_of(folder / "report.html")}
    places = {"model": model, "evaluation": folder / "evaluation", "page": folder / "report.html"}
    return {**places, "digests": digests, "builder": Builder("urn:tests")}


def test_a_model_that_was_judged_anew_is_the_version_that_is_there(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    save_artifact(tmp_path / "model", "recovered", extras=_weights)
    section = PublishingSection(to=str(place), name="lesions")
    made = [publish_model(storage, section, **judged(tmp_path, report)) for report in ("one test set", "another")]

    assert made[0] == made[1]
    named = section.model_copy(update={"version": made[0].version})
    with pytest.raises(StorageError, match="is published with other files"):
        publish_model(storage, named, **judged(tmp_path, "another"))


def test_another_model_under_this_ones_digest_is_not_taken_for_it(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    save_artifact(tmp_path / "model", "recovered", extras=_weights)
    publish(storage, place, "lesions", digest_of(tmp_path / "model")[:12], files(tmp_path / "other"), about={})

    with pytest.raises(StorageError, match="is published, and is another model"):
        publish_model(storage, PublishingSection(to=str(place), name="lesions"), **judged(tmp_path, "a report"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("model/a", "model/a has sha256 .* but its manifest says"),
        ("model/manifest.json", "model has digest .*, not"),
        ("evaluation/metrics.json", "evaluation/metrics.json has sha256"),
        ("evaluation/manifest.json", "evaluation has digest .*, not"),
        ("report.html", "report.html is not the report that the evaluation wrote"),
        ("another model", "the evaluation in .* is of another model"),
        ("its place", "the evaluation in .* is of another model"),
    ],
)
def test_what_is_not_what_its_stage_made_is_not_published(
    storage: Storage, place: ObjectAddress, tmp_path: Path, changed: str, said: str
) -> None:
    save_artifact(tmp_path / "model", "recovered", extras=_weights)
    given = judged(tmp_path, "a report")
    if changed == "another model":
        save_artifact(tmp_path / "model", "recovered", extras=_weights, seed=1)
        given["digests"]["recovered"] = digest_of(tmp_path / "model")
    elif changed == "its place":
        judged_as = {"student": given["model"], "recovered": given["evaluation"]}
        given["digests"]["evaluation"] = save_artifact(tmp_path / "evaluation", "evaluation", inputs=records(judged_as))
    elif changed.endswith("manifest.json"):
        resealed(tmp_path / Path(changed).parent, lambda fields: fields.update(seed=99))
    else:
        (tmp_path / changed).write_text('{"recovered.top1": 0.999}')

    with pytest.raises(ArtifactError, match=said):
        publish_model(storage, PublishingSection(to=str(place), name="lesions"), **given)
    assert published(storage, place) == []


def test_what_nobody_checked_is_not_published(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    save_artifact(tmp_path / "model", "recovered", extras=_weights)
    (tmp_path / "model" / "sitecustomize.py").write_text("")

    made = publish_model(storage, PublishingSection(to=str(place), name="lesions"), **judged(tmp_path, "a report"))
    beside = {"metrics.json", "report.html", "evaluation/manifest.json"}
    assert set(made.files) == {"model/a", "model/manifest.json", *beside}


def test_a_statement_lies_beside_a_version_and_stays(
    storage: Storage, place: ObjectAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_artifact(tmp_path / "model", "recovered", extras=_weights)
    section, given = PublishingSection(to=str(place), name="lesions", version="1"), judged(tmp_path, "a report")
    monkeypatch.setattr(publishing._Published, "to_json", _interrupt)  # its record is written last
    with pytest.raises(KeyboardInterrupt):
        publish_model(storage, section, **given)
    monkeypatch.undo()
    assert published(storage, place) == []

    made = publish_model(storage, section, **{**given, "builder": Builder("urn:another")})

    fetch_attached(storage, made, tmp_path)
    stated = statement.read(tmp_path / "statement.json")
    assert stated.predicate.run_details.builder.id == "urn:tests", "of whom it was that began"
    assert stated.files == made.files
    assert publish_model(storage, section, **given) == made


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_version_cannot_write_outside_the_folder_it_is_fetched_to(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    own = files(tmp_path / "in")["metrics.json"]
    with pytest.raises(StorageError, match="cannot be a published model's file"):
        publish(storage, place, "evil", "1", {"../escaped": own}, about={})
    made = publish(storage, place, "evil", "1", {"metrics.json": own}, about={})
    with pytest.raises(StorageError, match="outside its folder"):
        fetch(storage, replace(made, files={"../escaped": made.files["metrics.json"]}), tmp_path / "out")
    assert not (tmp_path / "escaped").exists()
