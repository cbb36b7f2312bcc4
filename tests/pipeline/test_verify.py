"""`resprout verify`: one flipped bit anywhere in a run's folder or a published version is found."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch import Tensor
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.embedded_storage import Server
from resprout import statement
from resprout.manifest import digest_of, read_manifest
from resprout.statement import STATEMENT
from resprout.storage import ObjectAddress, Storage
from resprout.types import Teacher
from tests.pipeline.running import write_recipe
from tests.pipeline.warm import run_warm
from tests.resprout.test_signing import make_key

QUICK = {
    "synthesis": {"num_images": 16, "num_held_out": 8, "group_size": 8, "iterations": 2},
    "recovery": {"epochs": 1, "batch_size": 8},
}
TRIES = 40


def command(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def flipped(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key, and its public one."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def _ran(
    tmp_path_factory: pytest.TempPathFactory,
    server: Server,
    keys: tuple[Path, Path],
    _trained: Teacher,
    _structured_images: tuple[Tensor, Tensor],
) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("ran")
    recipe = write_recipe(folder, _trained, _structured_images)
    fields = {**yaml.safe_load(recipe.read_text()), **QUICK, "publishing": {"to": f"s3://resprout/{folder.name}"}}
    recipe.write_text(yaml.safe_dump(fields))
    with pytest.MonkeyPatch.context() as patch:
        configure(server, patch)
        patch.setenv("RESPROUT_SIGNING_KEY", str(keys[0]))
        patch.setenv("RESPROUT_BUILDER", "https://here.example/team")
        exit_code, output = run_warm(recipe, "--output", folder / "run")
    assert exit_code == 0, output
    return folder / "run", json.loads((folder / "run" / "publication.json").read_text())["address"]


def configure(server: Server, patch: pytest.MonkeyPatch) -> None:
    access_key, secret_key, _ = server.settings.credentials()
    for name, value in {
        "ENDPOINT": server.settings.endpoint,
        "ACCESS_KEY": access_key,
        "SECRET_KEY": secret_key,
    }.items():
        patch.setenv(f"RESPROUT_STORAGE_{name}", value)


@pytest.fixture
def run_folder(_ran: tuple[Path, str], tmp_path: Path) -> Path:
    """A run's folder, which a test may do with as it likes."""
    shutil.copytree(_ran[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def version(_ran: tuple[Path, str], storage_configured: None, server: Server, tmp_path: Path) -> ObjectAddress:
    """A published version of its own."""
    storage, published = Storage(server.settings), ObjectAddress.parse(_ran[1])
    own = ObjectAddress("resprout", f"{tmp_path.name}/{'/'.join(published.key.split('/')[-2:])}")
    for found in list(storage.list(published)):
        storage.download(found.address, tmp_path / "object")
        place = ObjectAddress(own.bucket, found.address.key.replace(published.key, own.key, 1))
        storage.upload(tmp_path / "object", place)
    return own


def test_a_run_as_it_was_left_is_told_with_what_that_shows(run_folder: Path):
    model = digest_of(run_folder / "model")

    code, said = command("verify", run_folder, "--sha256", model)

    assert code == 0, said
    assert "WRONG" not in said
    assert f"model  {model}" in said
    assert "chain           teacher, test_set from outside" in said
    assert "It shows that none of these bytes changed" in said
    assert "The model is the one whose digest you kept." in said
    assert "have to believe https://here.example/team." in said
    assert command("verify", run_folder, "--sha256", "0" * 64)[0] == 1


def test_one_flipped_bit_in_a_runs_folder_is_found(run_folder: Path):
    draw = random.Random(0)
    files = sorted(path for path in run_folder.rglob("*") if path.is_file() and path.stat().st_size)
    named = [run_folder / name for name in ("recipe.yaml", "log.txt", "report.html", "metrics.json", STATEMENT)]
    named += [run_folder / "publication.json", *run_folder.glob("*/manifest.json")]
    assert set(named) <= set(files)

    for file in [*named, *draw.choices(files, k=TRIES)]:
        content = file.read_bytes()
        file.write_bytes(flipped(content, draw))
        code, said = command("verify", run_folder)
        assert code == 1, f"{file}: {said}"
        assert file.relative_to(run_folder).as_posix() in said
        file.write_bytes(content)
    assert command("verify", run_folder)[0] == 0


def test_files_that_are_gone_or_were_added_to_an_artifact_are_found(run_folder: Path):
    (run_folder / "notes.txt").write_text("my own")
    code, said = command("verify", run_folder)
    assert code == 0
    assert "not listed      notes.txt" in said

    (run_folder / "model" / "sitecustomize.py").write_text("")
    code, said = command("verify", run_folder)
    assert code == 1
    assert "model/sitecustomize.py was added" in said
    (run_folder / "model" / "sitecustomize.py").unlink()
    (run_folder / "model" / "density.json").rename(run_folder / "elsewhere")
    (run_folder / "model" / "density.json").symlink_to(run_folder / "elsewhere")
    assert "model/density.json is a link" in command("verify", run_folder)[1]
    (run_folder / "model" / "density.json").unlink()
    assert "model/density.json is missing" in command("verify", run_folder)[1]


def test_a_statement_that_was_written_anew_must_still_fit_the_artifacts(run_folder: Path):
    stated = json.loads((run_folder / STATEMENT).read_bytes())
    stated["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]["sha256"] = "0" * 64
    stated["predicate"].pop(statement.SEAL)
    made = statement.Statement.model_validate(stated)
    (run_folder / STATEMENT).write_bytes(made.to_bytes())

    code, said = command("verify", run_folder)

    assert code == 1
    assert "statement.json names other inputs than the artifacts do" in said


def test_without_a_statement_the_way_to_one_is_told(run_folder: Path):
    (run_folder / STATEMENT).unlink()

    code, said = command("verify", run_folder)

    assert code == 1
    assert "run the recipe" in said


def test_a_published_version_is_verified_with_its_signature(version: ObjectAddress, keys: tuple[Path, Path]):
    code, said = command("verify", version)
    assert code == 0, said
    assert "not checked: --public-key names the file" in said
    assert "It does not show who says so" in said

    code, said = command("verify", version, "--public-key", keys[1])
    assert code == 0, said
    assert "over these files, by the owner of" in said
    assert "It does not show who says so" not in said


def test_the_signature_of_somebody_else_does_not_do(version: ObjectAddress, tmp_path: Path):
    _, public = make_key(tmp_path / "other")

    code, said = command("verify", version, "--public-key", public)

    assert code == 1
    assert "none of these files by the owner of" in said


def test_one_flipped_bit_in_a_published_version_is_found(
    version: ObjectAddress, server: Server, tmp_path: Path, keys: tuple[Path, Path]
):
    draw, storage = random.Random(1), Storage(server.settings)
    objects = sorted((found.address for found in storage.list(version)), key=str)
    assert len(objects) >= 9, "the model's, three beside them, statement, signature and record"

    for address in [*objects, *draw.choices(objects, k=TRIES // 4)]:
        storage.download(address, tmp_path / "object")
        content = (tmp_path / "object").read_bytes()
        (tmp_path / "object").write_bytes(flipped(content, draw))
        storage.upload(tmp_path / "object", address)
        code, said = command("verify", version)
        assert code == 1, f"{address}: {said}"
        (tmp_path / "object").write_bytes(content)
        storage.upload(tmp_path / "object", address)
    assert command("verify", version, "--public-key", keys[1])[0] == 0


def test_what_was_fetched_is_verified_by_others_tools(version: ObjectAddress, keys: tuple[Path, Path], tmp_path: Path):
    assert command("models", "get", version, tmp_path / "got")[0] == 0
    (signature,) = (tmp_path / "got" / "signatures").iterdir()
    program = Path(sys.executable).with_name("model_signing")
    words = [program, "verify", "key", tmp_path / "got", "--signature", signature, "--public_key", keys[1]]

    asked = statement.read(tmp_path / "got" / STATEMENT).predicate.build_definition.external_parameters["recipe"]
    assert asked["teacher"]["source"] == "teacher", "the folder that it was fetched from, not what that says of itself"
    assert command("verify", tmp_path / "got", "--public-key", keys[1])[0] == 0
    assert subprocess.run(words, check=False).returncode == 0
    (tmp_path / "got" / "metrics.json").write_text("{}")
    assert subprocess.run(words, check=False, capture_output=True).returncode == 1
    assert command("verify", tmp_path / "got", "--public-key", keys[1])[0] == 1


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_commands_on_the_page_do_what_it_says(version: ObjectAddress, keys: tuple[Path, Path], tmp_path: Path):
    shutil.copyfile(keys[1], tmp_path / "publisher.pub")
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text().partition("### With others' tools")[2]
    commands = "\n".join(line for line in page.partition("\n## ")[0].splitlines() if line.startswith("    "))
    code, said = command("verify", version)
    digest = re.search(r"^model  (\w{64})$", said, re.MULTILINE)
    assert code == 0
    assert digest
    script = commands.replace("s3://models/compressed/lesions/1.2", str(version)).replace("DIGEST", digest[1])
    assert script != commands
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(script: str) -> subprocess.CompletedProcess[str]:
        words = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(words, cwd=tmp_path, env=tools, capture_output=True, text=True, check=False)

    done = run(script)
    assert done.returncode == 0, done.stderr
    for shown in ("Verification succeeded", "report.html: OK", "model/weights.safetensors: OK", "https://here.example"):
        assert shown in done.stdout
    checks = [line for line in script.splitlines() if "model_signing" in line or "sha256sum" in line]
    (tmp_path / "lesions" / "model" / "weights.safetensors").write_bytes(b"another")
    (tmp_path / "lesions" / "model" / "manifest.json").write_bytes(b"{}")
    assert len(checks) == 4
    assert all(run(f"cd lesions\n{line}").returncode for line in checks[:3])


def test_signatures_are_added_and_a_damaged_version_is_not_signed(
    version: ObjectAddress, server: Server, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage = Storage(server.settings)
    monkeypatch.setenv("RESPROUT_SIGNING_KEY", str(keys[0]))
    before = [found.address for found in storage.list(version)]

    code, said = command("models", "sign", version)

    assert code == 0, said
    (added,) = [found.address for found in storage.list(version) if found.address not in before]
    assert f"signed: {added}" in said
    assert command("verify", version, "--public-key", keys[1])[1].count("over these files, by the owner") == 2
    (report,) = [address for address in before if address.key.endswith("report.html")]
    (tmp_path / "other").write_text("another report")
    storage.upload(tmp_path / "other", report)
    code, said = command("models", "sign", version)
    assert code == 1
    assert "a signature would vouch for it" in said


def test_a_key_that_cannot_sign_is_refused_before_the_work(
    keys: tuple[Path, Path],
    tmp_path: Path,
    tiny_teacher: Teacher,
    tiny_images: tuple[Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("RESPROUT_SIGNING_KEY", str(keys[1]))

    code, said = run_warm(write_recipe(tmp_path, tiny_teacher, tiny_images), "--output", tmp_path / "out")

    assert code == 1
    assert f"error: {keys[1]} is no private key that can sign" in said
    assert "teacher" not in said.partition("error:")[2]


def test_times_are_in_no_manifest(run_folder: Path):
    stated = statement.read(run_folder / STATEMENT)
    for manifest in run_folder.glob("*/manifest.json"):
        assert stated.predicate.run_details.metadata.finished_on[:10] not in manifest.read_text()
        assert read_manifest(manifest.parent).kind
