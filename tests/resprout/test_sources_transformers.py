"""Image classifiers as transformers' save_pretrained leaves them, held against that library's own classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from resprout import artifacts, models
from resprout.errors import RecipeError, UnsupportedModelError
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import fetch

TREES = {0: "ash", 1: "elm", 2: "fir"}
SMALL: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
    "MobileNetV2": {"depth_multiplier": 0.1, "min_depth": 8},
}


def remembering(network: nn.Module) -> nn.Module:
    """With the BatchNorm statistics of a batch of noise, as if it had been trained."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return network.eval()


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


def saved(transformers: Any, folder: Path, family: str = "ResNet", **config: Any) -> nn.Module:
    """A classifier of transformers as its own library saves it, with an image processor beside it."""
    torch.manual_seed(0)
    settings = getattr(transformers, f"{family}Config")(**SMALL[family], **{"id2label": TREES, **config})
    network = remembering(getattr(transformers, f"{family}ForImageClassification")(settings))
    network.save_pretrained(folder)
    return network


def with_processor(transformers: Any, folder: Path, kind: str = "ConvNextImageProcessor", **settings: Any) -> Any:
    given = {"size": {"shortest_edge": 48}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], **settings}
    processor = getattr(transformers, kind)(**given)
    processor.save_pretrained(folder)
    return processor


@pytest.mark.parametrize("family", SMALL)
def test_a_saved_classifier_answers_as_in_its_own_library(transformers: Any, tmp_path: Path, family: str) -> None:
    network = saved(transformers, tmp_path / "trees", family)
    with_processor(transformers, tmp_path / "trees")

    teacher = fetch(TeacherSection(source="trees"), base=tmp_path)

    assert teacher.info.architecture == f"transformers:{family}ForImageClassification"
    assert teacher.info.class_names == ("ash", "elm", "fir")
    assert not teacher.info.custom_code
    artifacts.save_teacher(teacher, tmp_path / "teacher")
    (tmp_path / "trees").rename(tmp_path / "elsewhere")
    images = torch.rand(2, *teacher.info.input.shape)
    with torch.no_grad():
        again = artifacts.load_teacher(tmp_path / "teacher").network(images)
        assert torch.allclose(again, network(images).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ConvNextImageProcessor", {}),
        ("ViTImageProcessor", {"size": {"height": 40, "width": 56}}),
        ("MobileNetV2ImageProcessor", {"crop_size": {"height": 40, "width": 40}}),
        ("EfficientNetImageProcessor", {"size": {"height": 40, "width": 40}, "include_top": True}),
        ("ViTImageProcessor", {"size": {"height": 40, "width": 40}, "do_normalize": False}),
        ("ViTImageProcessor", {"size": {"height": 40, "width": 40}, "do_rescale": False, "image_mean": [25, 50, 75]}),
    ],
)
def test_images_are_fed_as_the_repositorys_image_processor_feeds_them(
    transformers: Any, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    saved(transformers, tmp_path)
    processor = with_processor(transformers, tmp_path, kind, **settings)

    spec = fetch(TeacherSection(source=str(tmp_path))).info.input

    processor.do_resize = False  # the picture has the size already
    picture = torch.randint(256, spec.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = processor(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(spec.to_pixels(made), picture / 255, atol=1e-4)


def test_names_that_nobody_gave_are_numbers(transformers: Any, tmp_path: Path) -> None:
    saved(transformers, tmp_path, id2label={label: f"LABEL_{label}" for label in range(3)})
    with_processor(transformers, tmp_path)
    assert fetch(TeacherSection(source=str(tmp_path))).info.class_names == ("0", "1", "2")


def test_the_recipes_input_goes_before_the_processors(transformers: Any, tmp_path: Path) -> None:
    saved(transformers, tmp_path)
    section = TeacherSection(source=str(tmp_path), input=InputSection(shape=(3, 64, 64)))
    assert fetch(section).info.input.shape == (3, 64, 64)


def test_without_an_image_processor_the_input_is_asked_for(transformers: Any, tmp_path: Path) -> None:
    saved(transformers, tmp_path)
    with pytest.raises(RecipeError, match=r"teacher\.input: is required") as refused:
        fetch(TeacherSection(source=str(tmp_path)))
    assert "preprocessor_config.json" in refused.value.why


def test_colours_that_are_turned_round_are_asked_for_and_not_guessed(transformers: Any, tmp_path: Path) -> None:
    saved(transformers, tmp_path)
    with_processor(transformers, tmp_path, "MobileViTImageProcessor", crop_size={"height": 40, "width": 40})
    with pytest.raises(RecipeError, match=r"teacher\.input: is required") as refused:
        fetch(TeacherSection(source=str(tmp_path)))
    assert "blue, green and red" in refused.value.why


def described(folder: Path, **config: Any) -> TeacherSection:
    """A repository of which only what it says of itself matters."""
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return TeacherSection(source=str(folder), input=InputSection(shape=(3, 32, 32)))


def test_without_transformers_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    section = described(tmp_path, model_type="resnet", architectures=["ResNetForImageClassification"])
    with pytest.raises(UnsupportedModelError, match="needs transformers, which is not installed") as refused:
        fetch(section)
    assert "pip install" in refused.value.now


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "resnet", "architectures": ["ResNetModel"]}, "holds a ResNetModel of transformers"),
        ({"architectures": ["NoForImageClassification"]}, "builds no NoForImageClassification"),
        (
            {"model_type": "regnet", "architectures": ["ResNetForImageClassification"]},
            "its model_type, regnet, is RegNetForImageClassification",
        ),
        (
            {"model_type": "resnet", "architectures": ["ResNetForImageClassification"], "hidden_sizes": "many"},
            "builds no ResNetForImageClassification of this configuration",
        ),
        ({"architecture": "resnet10t", "model_args": 3}, "model_args: 3, which is not a mapping"),
    ],
)
def test_what_is_no_classifier_of_transformers_is_refused_by_what_it_is(
    transformers: Any, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        fetch(described(tmp_path, **config))


def test_a_repositorys_own_code_never_runs(transformers: Any, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')\n")
    section = described(
        tmp_path,
        model_type="mine",
        architectures=["MyForImageClassification"],
        auto_map={"AutoConfig": "code.MyConfig", "AutoModelForImageClassification": "code.My"},
    )
    with pytest.raises(UnsupportedModelError) as refused:
        fetch(section)
    assert "which Resprout never runs" in refused.value.why


def test_an_architecture_is_no_custom_code() -> None:
    assert not models.is_custom("transformers:ResNetForImageClassification")
