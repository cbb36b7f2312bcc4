"""`resprout models get`: the model that was agreed on, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from resprout.artifacts import digest_of, save_artifact
from resprout.storage import ObjectAddress, Publication, Storage, publish
from tests.resprout.storage.conftest import place, storage

__all__ = ["place", "storage"]

pytestmark = pytest.mark.usefixtures("storage_configured")


def published(storage: Storage, place: ObjectAddress, folder: Path, **more: Path) -> Publication:
    def weights(made: Path) -> None:
        (made / "weights").write_text("weights")

    save_artifact(folder / "model", "recovered", extras=weights)
    files = {f"model/{path.name}": path for path in (folder / "model").iterdir()}
    return publish(storage, place, "tiny", "1", {**files, **more}, about={"metrics": {"recovered.top1": 0.5}})


def get(publication: Publication, to: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", "get", str(publication.address), str(to), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_model_that_was_agreed_on_is_fetched(storage: Storage, place: ObjectAddress, tmp_path: Path):
    made = published(storage, place, tmp_path)
    digest = digest_of(tmp_path / "model")

    code, output = get(made, tmp_path / "out", "--sha256", digest)

    assert code == 0, output
    assert digest in output
    assert digest_of(tmp_path / "out" / "model") == digest


@pytest.mark.parametrize("digest", ["0" * 64, "", "nonsense"])
def test_another_model_is_refused(storage: Storage, place: ObjectAddress, tmp_path: Path, digest: str):
    code, output = get(published(storage, place, tmp_path), tmp_path / "out", "--sha256", digest)

    assert code == 1
    assert "it is not the model that was agreed on" in output
    assert not (tmp_path / "out").exists()


def test_what_the_model_does_not_list_is_refused(storage: Storage, place: ObjectAddress, tmp_path: Path):
    (tmp_path / "more").write_text("import os")

    code, output = get(published(storage, place, tmp_path, **{"model/setup.py": tmp_path / "more"}), tmp_path / "out")

    assert code == 1
    assert "model/setup.py, which its model's manifest does not list" in output
    assert not (tmp_path / "out").exists()


def test_weights_that_were_changed_before_they_were_published_are_refused(
    storage: Storage, place: ObjectAddress, tmp_path: Path
):
    (tmp_path / "other").write_text("others")

    made = published(storage, place, tmp_path, **{"model/weights": tmp_path / "other"})
    code, output = get(made, tmp_path / "out", "--sha256", made.model_digest)

    assert code == 1
    assert "but its manifest says" in output
    assert not (tmp_path / "out").exists()
