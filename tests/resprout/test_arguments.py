"""What a network is built by is data: it opens no file, fetches nothing, runs nothing, wherever it comes from."""

from __future__ import annotations

import json
import pickle
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from safetensors.torch import save_file

from resprout import artifacts, models
from resprout import recipe as recipes
from resprout.arguments import problem_of
from resprout.errors import RecipeError, ResproutError, UnsupportedModelError
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import fetch
from resprout.types import Teacher

INPUT = InputSection(shape=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
TO_OPEN = {
    "timm:resnet10t": {"checkpoint_path": "FILE"},
    "timm:resnet18": {"pretrained_cfg_overlay": {"file": "FILE"}},
    "timm:resnet10t.c3_in1k": {"pretrained": True},
    "resnet10t": {"cache_dir": "FILE"},
    "resnet18": {"weights": "IMAGENET1K_V1"},
    "mobilenet_v2": {"pretrained": True},
    "cifar_mobilenet_v2": {"weights": "IMAGENET1K_V1"},
    "transformers:ResNetForImageClassification": {"model_type": "resnet", "attn_implementation": "someone/kernels"},
    "transformers:TimmWrapperForImageClassification": {
        "model_type": "timm_wrapper",
        "architecture": "resnet10t",
        "model_args": {"checkpoint_path": "FILE"},
    },
    "torch.hub:load": {"repo_or_dir": "someone/theirs", "model": "net"},
    "own_models:build": {"checkpoint_path": "FILE"},
}


class Runs:
    """Unpickled, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that runs when it is unpickled; `trap.ran` beside it then."""
    path = tmp_path / "trap"
    path.write_bytes(pickle.dumps(Runs(tmp_path / "trap.ran"), protocol=2))
    return path


def aimed(arguments: Any, trap: Path) -> Any:
    return json.loads(json.dumps(arguments).replace("FILE", str(trap)))


@pytest.mark.parametrize("architecture", TO_OPEN)
def test_no_builder_is_given_what_it_would_open_fetch_or_run(architecture: str, trap: Path) -> None:
    arguments = aimed(TO_OPEN[architecture], trap)
    with pytest.raises(UnsupportedModelError, match="the argument") as refusal:
        models.build(architecture, num_classes=3, arguments=arguments, allow_custom_code=True)
    assert "is data" in refusal.value.why
    assert not trap.with_suffix(".ran").exists()


@pytest.mark.parametrize("architecture", TO_OPEN)
def test_a_recipe_with_such_an_argument_is_refused_before_anything_is_read(architecture: str, trap: Path) -> None:
    fields = {"source": "nowhere.pt", "architecture": architecture, "arguments": aimed(TO_OPEN[architecture], trap)}
    with pytest.raises(RecipeError, match=r"teacher\.arguments\.\w+: "):
        recipes.section("teacher", fields)


def test_a_repository_that_names_a_file_to_open_is_refused(trap: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file(models.build("timm:resnet10t", num_classes=3).state_dict(), theirs / "model.safetensors")
    config = {"architecture": "resnet10t", "model_args": {"checkpoint_path": str(trap)}}
    (theirs / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="the argument checkpoint_path"):
        fetch(TeacherSection(source=str(theirs), input=INPUT))
    assert not trap.with_suffix(".ran").exists()


def test_a_folder_that_names_a_file_to_open_is_refused(tiny_teacher: Teacher, trap: Path, tmp_path: Path) -> None:
    info = tiny_teacher.info
    folder = tmp_path / "folder"
    artifacts.save_artifact(
        folder,
        kind="teacher",
        tensors={"weights": tiny_teacher.network.state_dict()},
        about={
            "model": {
                "architecture": "timm:resnet10t",
                "num_classes": info.num_classes,
                "class_names": list(info.class_names),
                "input": {"shape": [3, 16, 16], "mean": [0.5] * 3, "std": [0.5] * 3},
                "arguments": {"checkpoint_path": str(trap)},
            },
        },
    )
    with pytest.raises(ResproutError, match="checkpoint_path"):
        artifacts.load_teacher(folder)
    assert not trap.with_suffix(".ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        [{"a": 1}],
        "x" * 201,
        "two\nlines",
        "\ud800",
        float("nan"),
        float("inf"),
        10**30,
        [[[[["deep"]]]]],
        [0] * 10_001,
        b"bytes",
        {1, 2},
    ],
)
def test_arguments_are_plain_values_of_bounded_size(value: Any) -> None:
    assert problem_of({"width": value}) is not None
    with pytest.raises(UnsupportedModelError, match="the argument width"):
        models.build("cifar_resnet8", num_classes=3, arguments={"width": value})


def test_a_list_that_holds_itself_ends() -> None:
    endless: list[Any] = []
    endless += [endless] * 20
    assert problem_of({"stages": endless}) is not None


def test_plain_values_pass_and_so_does_what_is_turned_off() -> None:
    given = {"width": 8, "rate": 0.5, "act": "relu", "aa": True, "none": None, "stages": [[3, "s", 1.5], [4]]}
    assert problem_of(given) is None
    assert problem_of({"pretrained": False, "checkpoint_path": "", "weights": None, "pretrained_cfg": None}) is None


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("cifar_resnet8", {"width": 1 << 20}),
        ("cifar_resnet8", {"width": 20_000}),
        ("timm:resnet10t", {"layers": [1 << 20, 1, 1, 1]}),
        ("timm:resnet10t", {"stem_width": 1 << 20}),
        ("resnet18", {"width_per_group": 1 << 20}),
    ],
)
def test_a_network_out_of_proportion_is_never_built(
    tiny_teacher: Teacher, tmp_path: Path, architecture: str, arguments: dict[str, Any]
) -> None:
    save_file(tiny_teacher.network.state_dict(), tmp_path / "net.safetensors")
    section = TeacherSection(
        source=str(tmp_path / "net.safetensors"), architecture=architecture, arguments=arguments, input=INPUT
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsupportedModelError) as refusal:
        fetch(section)
    assert "teacher.arguments" in refusal.value.now
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "KiB"


def test_a_teachers_folder_is_no_larger_than_its_weights(tiny_teacher: Teacher, tmp_path: Path) -> None:
    info = replace(tiny_teacher.info, arguments={"width": 20_000})
    artifacts.save_teacher(replace(tiny_teacher, info=info), tmp_path / "teacher")
    with pytest.raises(UnsupportedModelError, match="the network has more than"):
        artifacts.load_teacher(tmp_path / "teacher")


@pytest.mark.parametrize("architecture", ["timm:resnet10t", "cifar_vgg11_bn", "resnet18"])
def test_what_a_builder_raises_is_told_in_three_lines(architecture: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        models.build(architecture, num_classes=3, arguments={"width": [[-1, "?"]], "no_such": "x"})
    assert refusal.value.now


def test_timm_is_one_that_reads_weights_only(tmp_path: Path, trap: Path) -> None:
    timm = pytest.importorskip("timm")
    (requirement,) = [
        Requirement(line.split('"')[1])
        for line in Path(__file__).parents[2].joinpath("pyproject.toml").read_text().splitlines()
        if line.startswith("timm = ")
    ]
    assert not {"1.0.9", "1.0.24", "1.0.25"} & set(requirement.specifier.filter(["1.0.9", "1.0.24", "1.0.25"]))
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        timm.create_model("resnet10t", checkpoint_path=str(trap))
    assert not trap.with_suffix(".ran").exists()
