"""A teacher whose sha256 a recipe gives is that teacher, whatever else its folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from resprout import artifacts
from resprout.errors import ArtifactError, ResproutError
from resprout.recipe import TeacherSection
from resprout.sources import fetch
from resprout.types import Teacher
from tests.resprout.sealing import resealed

PLACES = ["weights.safetensors", "z/weights.safetensors", "a/weights.safetensors", "Weights.safetensors"]
PLACES += ["./weights.safetensors", "weights.bin.safetensors", "mask.safetensors", "weights", "../other.safetensors"]


@pytest.fixture
def honest(tiny_teacher: Teacher, tmp_path: Path) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "honest")
    return tmp_path / "honest"


def pins(folder: Path) -> tuple[str, str]:
    """The folder's digest, and its weights'."""
    return artifacts.digest_of(folder), artifacts.sha256_of(folder / "weights.safetensors")


def test_the_digest_of_a_folder_names_all_of_it(honest: Path, tiny_teacher: Teacher) -> None:
    digest, weights = pins(honest)
    teacher = fetch(TeacherSection(source="honest", sha256=digest), base=honest.parent)
    assert teacher.info == tiny_teacher.info
    assert teacher.digest == weights
    assert teacher.notes == ()


def test_the_digest_of_weights_alone_says_what_it_does_not_name(honest: Path) -> None:
    digest, weights = pins(honest)
    resealed(honest, lambda fields: fields["about"]["model"]["input"].update(std=[0.9, 0.9, 0.9]))
    (note,) = fetch(TeacherSection(source="honest", sha256=weights), base=honest.parent).notes
    assert "names the weights alone" in note
    assert artifacts.digest_of(honest) in note
    with pytest.raises(ArtifactError, match="that the recipe says"):
        fetch(TeacherSection(source="honest", sha256=digest), base=honest.parent)


@st.composite
def attacks(draw: st.DrawFn) -> list[tuple[str, bool, bool]]:
    """(where another's weights are put, whether the manifest lists them there, whether before what it listed)."""
    return draw(st.lists(st.tuples(st.sampled_from(PLACES), st.booleans(), st.booleans()), min_size=1, max_size=3))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attacks(), st.booleans(), st.booleans())
def test_a_folder_that_passes_with_a_pin_loads_the_pinned_tensors_alone(
    honest: Path, tmp_path: Path, attack: list[tuple[str, bool, bool]], of_the_folder: bool, input_too: bool
) -> None:
    expected, pin = load_file(honest / "weights.safetensors"), pins(honest)[not of_the_folder]
    folder = tmp_path / "given"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(honest, folder)
    for place, listed, before in attack:
        put(another(expected), folder / place)
        if listed:
            resealed(folder, lambda fields, at=place, first=before: list_file(fields, folder, at, first))
    if input_too:
        resealed(folder, lambda fields: fields["about"]["model"]["input"].update(std=[0.9, 0.9, 0.9]))
    try:
        teacher = fetch(TeacherSection(source="given", sha256=pin), base=tmp_path)
    except ResproutError:
        return
    found = teacher.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (of_the_folder and input_too)


def another(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in weights.items()}


def put(weights: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file(weights, path)


def list_file(fields: dict[str, Any], folder: Path, place: str, first: bool) -> None:
    entry = {place: artifacts.sha256_of(folder / place)}
    fields["files"] = {**entry, **fields["files"]} if first else {**fields["files"], **entry}
