"""Hubs, without a network: each hub's own local cache holds the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from resprout import artifacts, models
from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import fetch
from resprout.sources.hubs import torchvision_weights

REVISION = "0123456789abcdef0123456789abcdef01234567"


def trained(architecture: str, num_classes: int = 1000) -> dict[str, Tensor]:
    """A state dict whose BatchNorm statistics are no longer the initial ones."""
    state = models.build(architecture, num_classes=num_classes).state_dict()
    # small enough variances for an image to be seen at the end of many untrained layers
    return {name: 0.2 * tensor + 0.01 if "running" in name else tensor for name, tensor in state.items()}


@pytest.mark.parametrize("name", models.TORCHVISION)
def test_torchvision_knows_weights_for_every_architecture_of_ours(name: str) -> None:
    weights = torchvision_weights(f"torchvision://{name}?weights=IMAGENET1K_V1")
    assert weights.url.startswith("https://")
    assert torchvision_weights(f"torchvision://{name}").name in type(weights).__members__


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision://resnet50?weights=IMAGENET1K_V9", "no weights 'IMAGENET1K_V9' for resnet50"),
        ("torchvision://resnet999", "torchvision://resnet999 is none of"),
        ("torchvision://resnet50?weight=IMAGENET1K_V1", "is not understood"),
        ("hf://only-one-part", "is not hf://OWNER/REPO"),
        ("hf://owner/repo/more", "is not hf://OWNER/REPO"),
    ],
)
def test_a_hub_address_that_names_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fetch(TeacherSection(source=source))


def test_the_weights_that_there_are_are_listed() -> None:
    with pytest.raises(RecipeError) as refusal:
        torchvision_weights("torchvision://resnet50?weights=V2")
    assert refusal.value.now == "it has IMAGENET1K_V1, IMAGENET1K_V2"


def cached(state: dict[str, Tensor], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state dict in torch's cache, as if its address were that of the weights of torchvision's ShuffleNet."""
    (folder / "checkpoints").mkdir()
    torch.save(state, folder / "saved")
    digest = artifacts.sha256_of(folder / "saved")
    path = (folder / "saved").rename(folder / "checkpoints" / f"shufflenetv2_x1-{digest[:10]}.pth")
    weights = torchvision_weights("torchvision://shufflenet_v2_x1_0")
    monkeypatch.setattr(weights.value, "url", f"https://download.pytorch.org/models/{path.name}")
    return path


def test_a_torchvision_teacher_brings_its_transform_and_class_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    state = trained("shufflenet_v2_x1_0")
    path = cached(state, tmp_path, monkeypatch)
    teacher = fetch(TeacherSection(source="torchvision://shufflenet_v2_x1_0"))
    assert teacher.source == "torchvision://shufflenet_v2_x1_0?weights=IMAGENET1K_V1"
    assert teacher.digest == artifacts.sha256_of(path)
    assert teacher.info.architecture == "shufflenet_v2_x1_0"
    assert teacher.info.input.shape == (3, 224, 224)
    assert teacher.info.input.mean == (0.485, 0.456, 0.406)
    assert teacher.info.class_names[:2] == ("tench", "goldfish")
    assert torch.equal(teacher.network.state_dict()["fc.weight"], state["fc.weight"])


def test_a_hubs_file_is_held_to_the_recipes_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir()
    path.write_bytes(b"not what was agreed on")
    with pytest.raises(ArtifactError, match="but the recipe says"):
        fetch(TeacherSection(source="torchvision://resnet18", sha256="0" * 64))


def test_a_file_in_torchs_cache_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    path = cached(trained("shufflenet_v2_x1_0"), tmp_path, monkeypatch)
    torch.save(trained("shufflenet_v2_x1_0", num_classes=999), path)
    with pytest.raises(ArtifactError, match="is not what its name says") as refusal:
        fetch(TeacherSection(source="torchvision://shufflenet_v2_x1_0"))
    assert refusal.value.now.startswith(f"rm {path}")


def test_so_is_one_in_hugging_faces_cache(hub: Path) -> None:
    (hub / "config.json").write_text(json.dumps(CONFIG))
    blobs = hub.parents[1] / "blobs"
    blobs.mkdir()
    save_file(trained("timm:resnet10t", 3), blobs / ("0" * 64))
    (hub / "model.safetensors").symlink_to(blobs / ("0" * 64))
    with pytest.raises(ArtifactError, match="is not what its name says"):
        fetch(TeacherSection(source="hf://owner/net"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"architecture": "resnet10t", "architecture": "resnet18"}', "twice"),
        (1000 * "[" + 1000 * "]", "nested too deep"),
        ('{"architecture": "resnet10t", "x": "' + (1 << 24) * "x" + '"}', "more than 16,777,216 bytes"),
        ("[]", "is not a mapping"),
    ],
    ids=["twice", "deep", "long", "list"],
)
def test_a_configuration_that_cannot_be_read_is_refused(hub: Path, text: str, message: str) -> None:
    (hub / "config.json").write_text(text)
    with pytest.raises(UnsupportedModelError, match=message):
        fetch(TeacherSection(source="hf://owner/net"))


@pytest.mark.parametrize("pretrained", [{"input_size": [10**12, 1, 1], "mean": 0.5, "std": 0.5}, {"mean": 10**400}])
def test_a_configuration_of_absurd_images_asks_for_others(hub: Path, pretrained: dict[str, object]) -> None:
    config = {**CONFIG, "pretrained_cfg": {"input_size": [3, 64, 64], "mean": 0.5, "std": 0.5, **pretrained}}
    (hub / "config.json").write_text(json.dumps(config))
    save_file(trained("timm:resnet10t", 3), hub / "model.safetensors")
    with pytest.raises(RecipeError, match=r"teacher\.input: is required"):
        fetch(TeacherSection(source="hf://owner/net"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in a local Hugging Face cache, at a fixed revision; offline."""
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository(tmp_path, "owner/net")


def repository(cache: Path, name: str) -> Path:
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    snapshot = root / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    return snapshot


CONFIG = {
    "architecture": "resnet10t",
    "num_classes": 3,
    "label_names": ["ash", "elm", "fir"],
    "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 1000},
}


@pytest.mark.parametrize("at", ["", f"@{REVISION}"])
def test_a_hugging_face_repository_brings_everything(hub: Path, at: str) -> None:
    state = trained("timm:resnet10t", 3)
    save_file(state, hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps(CONFIG))
    teacher = fetch(TeacherSection(source=f"hf://owner/net{at}"))
    assert teacher.info.architecture == "timm:resnet10t"
    assert teacher.info.class_names == ("ash", "elm", "fir")
    assert teacher.info.input.shape == (3, 64, 64)
    assert teacher.info.input.std == (0.4, 0.5, 0.6)
    assert teacher.source == f"hf://owner/net{at}"
    assert teacher.digest == artifacts.sha256_of(hub / "model.safetensors")
    assert torch.equal(teacher.network.state_dict()["fc.weight"], state["fc.weight"])


def test_one_number_in_a_hubs_configuration_is_every_channels(hub: Path) -> None:
    save_file(trained("timm:resnet10t", 3), hub / "model.safetensors")
    stated = {"input_size": [3, 64, 64], "mean": 0.5, "std": 0.25}
    (hub / "config.json").write_text(json.dumps({**CONFIG, "pretrained_cfg": stated}))
    spec = fetch(TeacherSection(source="hf://owner/net")).info.input
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize("mean", [[123.675, 116.28, 103.53], ["a", "b", "c"], [0.5]])
def test_a_hubs_normalisation_that_cannot_be_is_asked_for_and_not_taken(hub: Path, mean: list[object]) -> None:
    save_file(trained("timm:resnet10t", 3), hub / "model.safetensors")
    stated = {"input_size": [3, 64, 64], "mean": mean, "std": [0.4, 0.5, 0.6]}
    (hub / "config.json").write_text(json.dumps({**CONFIG, "pretrained_cfg": stated}))
    with pytest.raises(RecipeError, match=r"teacher\.input: is required") as refused:
        fetch(TeacherSection(source="hf://owner/net"))
    assert "its configuration says" in refused.value.why
    assert fetch(TeacherSection(source="hf://owner/net", input=InputSection(shape=(3, 64, 64)))).info.num_classes == 3


def test_a_repository_of_another_library_asks_for_what_it_does_not_say(hub: Path) -> None:
    save_file(trained("cifar_resnet8", 3), hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps({"framework": "of somebody's own"}))
    with pytest.raises(RecipeError, match=r"teacher\.architecture: is required"):
        fetch(TeacherSection(source="hf://owner/net"))


def test_the_recipes_architecture_goes_before_the_repositorys(hub: Path) -> None:
    save_file(trained("cifar_resnet8", 3), hub / "model.safetensors")
    says = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"], "depths": [1]}
    (hub / "config.json").write_text(json.dumps(says))
    section = TeacherSection(
        source="hf://owner/net", architecture="cifar_resnet8", input=InputSection(shape=(3, 32, 32))
    )
    assert fetch(section).info.num_classes == 3


@pytest.mark.parametrize("absent", ["pretrained_cfg", "model_args"])
def test_a_repository_may_say_null(hub: Path, absent: str) -> None:
    save_file(trained("timm:resnet10t", 3), hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps({**CONFIG, absent: None}))
    assert fetch(TeacherSection(source="hf://owner/net", input=InputSection(shape=(3, 64, 64)))).info.num_classes == 3


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], {"ash": "a tree"}, None])
def test_a_repository_that_names_no_class_has_numbers(hub: Path, names: object) -> None:
    save_file(trained("timm:resnet10t", 3), hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps({**CONFIG, "label_names": names}))
    assert fetch(TeacherSection(source="hf://owner/net")).info.class_names == ("0", "1", "2")


def test_a_folder_laid_out_as_a_repository_is_a_source(hub: Path) -> None:
    save_file(trained("timm:resnet10t", 3), hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps(CONFIG))
    teacher = fetch(TeacherSection(source=hub.name), base=hub.parent)
    assert teacher.info.class_names == ("ash", "elm", "fir")
    beside = fetch(TeacherSection(source="s3://models/net"), stored=lambda address, folder, report: hub)
    assert beside.source == "s3://models/net"
    (hub / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"there is no model\.safetensors"):
        fetch(TeacherSection(source=hub.name), base=hub.parent)


def test_a_repository_that_cannot_be_had_says_what_to_do(hub: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json of hf://nobody/nothing cannot be fetched") as refusal:
        fetch(TeacherSection(source="hf://nobody/nothing"))
    assert "hf auth login" in refusal.value.now


def test_a_timm_teacher_brings_its_transform(hub: Path) -> None:
    state = trained("timm:resnet10t")
    path = repository(hub.parents[2], "timm/resnet10t.c3_in1k") / "model.safetensors"
    save_file(state, path)
    teacher = fetch(TeacherSection(source="timm://resnet10t", input=InputSection(shape=(3, 32, 32))))
    assert teacher.source == "timm://resnet10t.c3_in1k"
    assert teacher.digest == artifacts.sha256_of(path)
    assert teacher.info.num_classes == 1000
    assert torch.equal(teacher.network.state_dict()["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    ("source", "message", "now"),
    [
        ("timm://resnet10tt", "no architecture 'timm:resnet10tt'", "did you mean"),
        ("timm://resnetblur18", "timm has no pretrained weights for 'resnetblur18'", "file"),
    ],
)
def test_a_timm_name_without_weights_is_refused(source: str, message: str, now: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UnsupportedModelError, match=message) as refusal:
        fetch(TeacherSection(source=source))
    assert now in refusal.value.now
