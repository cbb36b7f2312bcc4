"""Names are what they look like, wherever they come from: a recipe, a manifest, a hub, a folder, a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline import inspection
from resprout import artifacts
from resprout.datasets import load_labelled
from resprout.errors import DatasetError, RecipeError, ResproutError, UnsupportedModelError
from resprout.recipe import TeacherSection, section
from resprout.sources import fetch
from resprout.sources.files import read_weights
from resprout.types import InputSpec, ModelInfo, Student

SPEC = InputSpec((3, 4, 4), (0.5,) * 3, (0.5,) * 3)
HOSTILE = ["\ud800", "a\x1b[2K", "a\nb", "a\u202eb", "a\u2028b", "\x9b", "x" * 257, " "]
PLAIN = ["Zürich", "می\u200cخواهم", "👩\u200d⚕️", "tench, Tinca tinca", "x" * 256]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_not_what_it_looks_like_is_refused_where_it_enters(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"teacher\.class_names"):
        ModelInfo("any", 2, SPEC, ("a", name))
    with pytest.raises(UnsupportedModelError):
        ModelInfo(name, 2, SPEC, ("a", "b"))
    with pytest.raises(RecipeError):
        section("teacher", {"source": "x", "class_names": ["a", name]})


@pytest.mark.parametrize("name", PLAIN)
def test_names_of_any_script_are_fine(name: str) -> None:
    assert ModelInfo("any", 2, SPEC, ("a", name)).class_names[1] == name
    assert section("teacher", {"source": "x", "class_names": ["a", name]}).class_names == ("a", name)


@pytest.mark.parametrize("name", ["a\x1b[2K", "a\nb", "\udcff"])
def test_a_class_folder_and_a_packed_sets_class_are_names_too(tmp_path: Path, name: str) -> None:
    info = ModelInfo("any", 2, SPEC, ("0", "1"))
    for folder in ("a", name):
        (tmp_path / "set" / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match="has a class"):
        load_labelled(tmp_path / "set", info=info)

    tensors = {"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "labels": torch.tensor([0, 1])}
    save_file(tensors, tmp_path / "set.safetensors", metadata={"class_names": json.dumps(["a", name])})
    with pytest.raises(DatasetError, match="has a class"):
        load_labelled(tmp_path / "set.safetensors", info=info)


def test_what_a_hub_calls_classes_are_names_too(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    config: dict[str, Any] = {"architecture": "resnet10t", "label_names": ["a", "\x1b[2K"], "num_classes": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "input_size": [3, 32, 32], "mean": 0.5, "std": 0.5}))
    with pytest.raises(UnsupportedModelError, match=r"teacher\.class_names"):
        fetch(TeacherSection(source=str(tmp_path), num_classes=2))


def test_tensors_have_names_too(tmp_path: Path) -> None:
    torch.save({"a\nnow: all is well": torch.zeros(2)}, tmp_path / "net.pt")
    with pytest.raises(UnsupportedModelError, match="cannot be shown"):
        read_weights(tmp_path / "net.pt", "net.pt")


def test_what_a_manifest_says_commands_no_terminal(
    tiny_student: Student, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"source": "\x1b]0;owned\x07\u202e\ndigest      one of its own"}
    record = {"name": "teacher", "kind": "teacher", "sha256": "0" * 64, "inputs": [], "section": {}, "about": about}
    try:
        artifacts.save_student(tiny_student, tmp_path / "model", inputs=[{**record, "seed": None}])
        inspection.show(tmp_path / "model")
    except ResproutError as error:
        shown = str(error)
    else:
        shown = capsys.readouterr().out
    assert all(it.isprintable() for it in shown.replace("\n", ""))
    assert "\ndigest      one of its own" not in shown
