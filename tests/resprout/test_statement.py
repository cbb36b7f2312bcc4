"""What a run says of itself, held against in-toto's and SLSA's own readers."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement as InTotoStatement

from resprout import statement
from resprout.errors import ArtifactError
from resprout.statement import Builder

TEACHER = {
    "name": "teacher",
    "kind": "teacher",
    "sha256": "a" * 64,
    "inputs": [],
    "about": {"source": "torchvision://resnet18", "digest": "b" * 64},
}
IMAGES = {
    "name": "test_set",
    "kind": "test_set",
    "sha256": "c" * 64,
    "inputs": [],
    "about": {"source": "claimed: s3://a\x1b[31m"},
}
STUDENT = {
    "name": "student",
    "kind": "student",
    "sha256": "d" * 64,
    "inputs": [TEACHER],
    "computed_on": "cpu",
    "resumed": ["9" * 64],
}
EVALUATION = {"name": "evaluation", "kind": "evaluation", "sha256": "e" * 64, "inputs": [TEACHER, STUDENT, IMAGES]}
FILES = {"model/manifest.json": "d" * 64, "report.html": "f" * 64}
BUILDER = Builder("https://kfp.example", "run-7", ("ours/cpu:1", f"ours/cuda@sha256:{'8' * 64}"))


@pytest.fixture
def made() -> statement.Statement:
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    return statement.build(FILES, EVALUATION, {"seed": 0, "publishing": {"to": None}}, BUILDER, started=began)


def test_others_read_it_as_what_it_is(made: statement.Statement):
    content = made.to_bytes()

    InTotoStatement.copy_from_pb(json_format.Parse(content, statement_pb2.Statement())).validate()
    read = json_format.ParseDict(
        json.loads(content)["predicate"], provenance_pb2.Provenance(), ignore_unknown_fields=True
    )

    assert read.build_definition.build_type
    assert read.run_details.builder.id == BUILDER.id
    assert read.run_details.metadata.invocation_id == BUILDER.run
    assert read.run_details.metadata.started_on.ToJsonString() == "2026-01-02T03:04:05Z"
    inputs = [(it.name, it.uri, it.digest["sha256"]) for it in read.build_definition.resolved_dependencies]
    assert inputs == [
        ("teacher", "torchvision://resnet18", "b" * 64),
        ("test_set", "", "c" * 64),
        ("image", "docker://ours/cpu:1", ""),
        ("image", "docker://ours/cuda", "8" * 64),
    ]
    claimed = read.build_definition.resolved_dependencies[1].annotations.fields["source"].string_value
    assert claimed == "claimed: s3://a[31m"
    assert [(it.name, it.digest["sha256"]) for it in read.run_details.byproducts] == [
        ("evaluation", "e" * 64),
        ("student", "d" * 64),
    ]
    assert read.run_details.byproducts[1].annotations.fields["resumed"].string_value == "9" * 64


def test_what_is_written_is_read(made: statement.Statement, tmp_path: Path):
    (tmp_path / "statement.json").write_bytes(made.to_bytes())

    assert statement.read(tmp_path / "statement.json") == made
    assert made.files == FILES


def test_each_changed_byte_is_found(made: statement.Statement):
    content = made.to_bytes()
    for at in range(0, len(content), 7):
        for bit in (1, 32):
            damaged = bytearray(content)
            damaged[at] ^= bit
            with pytest.raises(ValueError, match=r"."):
                statement.parse(bytes(damaged))


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a//b", "a/./b", "a\nb", "a\x1b[2Kb"])
def test_a_file_is_named_by_a_plain_path_below_its_folder(name: str):
    with pytest.raises(ValueError, match=r"."):
        statement.build({name: "0" * 64}, EVALUATION, {}, BUILDER)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"[]", "no statement of Resprout's"),
        (b'{"predicate": {"resprout_seal": 1}}', "changed after it was written"),
        (b"[" * 100_000, "nested too deep"),
        (b" " * (statement.LARGEST_BYTES + 1), "it is larger than 16 MiB"),
    ],
)
def test_what_is_none_is_refused_in_words(content: bytes, said: str, tmp_path: Path):
    (tmp_path / "statement.json").write_bytes(content)

    with pytest.raises(ArtifactError, match=said) as refused:
        statement.read(tmp_path / "statement.json")
    assert refused.value.why
    assert refused.value.now


def test_where_there_is_none_the_way_to_one_is_told(tmp_path: Path):
    with pytest.raises(ArtifactError, match="there is no") as refused:
        statement.read(tmp_path / "statement.json")
    assert "run the recipe" in refused.value.now
