from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from resprout import artifacts, models
from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import fetch, fetched_from
from resprout.types import Teacher

INPUT = InputSection(shape=(3, 16, 16), mean=(0.5, 0.45, 0.4), std=(0.25, 0.2, 0.3))


def section_of(source: str, **fields: Any) -> TeacherSection:
    fields = {"architecture": "cifar_resnet8", "arguments": {"width": 8}, "input": INPUT, **fields}
    return TeacherSection(source=source, **fields)


@pytest.fixture
def state(tiny_teacher: Teacher) -> dict[str, Tensor]:
    return tiny_teacher.network.state_dict()


def check_is(teacher: Teacher, expected: Teacher) -> None:
    left, right = teacher.network.state_dict(), expected.network.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_a_safetensors_file_is_fetched(tiny_teacher: Teacher, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    teacher = fetch(section_of("weights.safetensors"), base=tmp_path)
    check_is(teacher, tiny_teacher)
    assert teacher.info.num_classes == 4
    assert teacher.info.class_names == ("0", "1", "2", "3")
    assert teacher.info.input == tiny_teacher.info.input
    assert teacher.digest == artifacts.sha256_of(tmp_path / "weights.safetensors")
    assert teacher.source == "weights.safetensors"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "best": 0.9},
        lambda state: {"net": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
    ],
)
def test_a_torch_checkpoint_is_fetched_however_it_is_wrapped(
    tiny_teacher: Teacher, state: dict[str, Tensor], tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    torch.save(wrap(state), tmp_path / "weights.pt")
    fetched = fetch(section_of(str(tmp_path / "weights.pt"))).network.state_dict()
    for name, tensor in tiny_teacher.network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(fetched[name], tensor)


def test_half_precision_weights_are_computed_with_in_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors")
    teacher = fetch(section_of("half.safetensors"), base=tmp_path)
    assert all(weight.dtype == torch.float32 for weight in teacher.network.parameters())


def test_a_folder_of_ours_needs_nothing_else(tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    teacher = fetch(TeacherSection(source="teacher"), base=tmp_path)
    check_is(teacher, tiny_teacher)
    assert teacher.info == tiny_teacher.info
    assert teacher.source == "claimed by the folder: tests"
    assert teacher.digest == artifacts.sha256_of(tmp_path / "teacher" / "weights.safetensors")


def test_what_a_folder_says_of_its_source_is_called_a_claim_and_but_once(tiny_teacher: Teacher, tmp_path: Path) -> None:
    claim = "torchvision://resnet50?weights=IMAGENET1K_V2"
    folder = tmp_path / "teacher"
    for _ in range(2):
        artifacts.save_teacher(replace(tiny_teacher, source=claim), folder)
        claim = fetch(TeacherSection(source=str(folder))).source
        assert claim == "claimed by the folder: torchvision://resnet50?weights=IMAGENET1K_V2"
    artifacts.save_teacher(replace(tiny_teacher, source=""), folder)
    assert fetch(TeacherSection(source=str(folder))).source == "teacher", "it claims nothing"


def test_where_a_teacher_is_fetched_from_is_told_without_secrets_and_paths() -> None:
    for source, told in {
        "runs/mine/teacher": "teacher",
        "/home/me/net.pt": "net.pt",
        "s3://bucket/net": "s3://bucket/net",
        "torchvision://resnet18?weights=DEFAULT": "torchvision://resnet18?weights=DEFAULT",
        "https://me:pass@host/net.pt?signature=x": "https://host/net.pt",
    }.items():
        assert fetched_from(TeacherSection(source=source)) == told


def test_the_recipe_goes_before_the_source(tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    larger = InputSection(shape=(3, 32, 32))
    teacher = fetch(TeacherSection(source="teacher", input=larger, class_names=("a", "b", "c", "d")), base=tmp_path)
    assert teacher.info.input.shape == (3, 32, 32)
    assert teacher.info.class_names == ("a", "b", "c", "d")


def test_a_fetched_teacher_survives_being_an_artifact(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    section = section_of("weights.safetensors")
    teacher = replace(fetch(section, base=tmp_path), notes=("one choice", "another"))
    artifacts.save_teacher(teacher, tmp_path / "teacher", section=section)
    loaded = artifacts.load_teacher(tmp_path / "teacher")
    check_is(loaded, teacher)
    assert replace(loaded, network=teacher.network) == teacher


def test_old_densenet_names_are_understood(tmp_path: Path) -> None:
    network = models.build("densenet121", num_classes=3)
    current = {
        name: torch.full_like(tensor, 0.5) if "running" in name else tensor
        for name, tensor in network.state_dict().items()
    }
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: tensor
        for name, tensor in current.items()
    }
    assert old.keys() != current.keys()
    torch.save(old, tmp_path / "old.pth")
    shape = InputSection(shape=(3, 32, 32))
    section = section_of("old.pth", architecture="densenet121", arguments={}, input=shape)
    fetched = fetch(section, base=tmp_path).network.state_dict()
    assert all(torch.equal(fetched[name], current[name]) for name in current)


# Refusals: bare files


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was_run"),)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(Payload(), path),
        lambda path: torch.save(nn.Linear(2, 2), path),
        lambda path: torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, path),
        lambda path: path.write_bytes(pickle.dumps(Payload())),
        lambda path: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path),
    ],
    ids=["reduce", "module", "namespace", "plain pickle", "torchscript"],
)
def test_a_pickle_that_holds_code_is_refused_and_never_run(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated; people still have such files
        warnings.simplefilter("ignore", DeprecationWarning)
        write(tmp_path / "resnet50.pt")
    with pytest.raises(UnsupportedModelError) as refusal:
        fetch(section_of("resnet50.pt"))
    assert refusal.value.what == "teacher 'resnet50.pt' is a pickle that holds code, not only weights"
    assert "run any program" in refusal.value.why
    assert "safetensors" in refusal.value.now
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(state: dict[str, Tensor], tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnsupportedModelError, match="cannot be read as weights") as refusal:
        fetch(section_of(name), base=tmp_path)
    assert "truncated" in refusal.value.why


@pytest.mark.parametrize("content", [{"epoch": 3, "loss": 0.1}, [1, 2], {}, {"state_dict": {"a": 1}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UnsupportedModelError, match="holds no state dict"):
        fetch(section_of("weights.pt"), base=tmp_path)


def test_a_digest_that_differs_is_refused_before_anything_is_parsed(tmp_path: Path) -> None:
    torch.save(Payload(), tmp_path / "weights.pt")
    with pytest.raises(ArtifactError, match="but the recipe says " + "0" * 64):
        fetch(section_of("weights.pt", sha256="0" * 64), base=tmp_path)


def test_a_folder_whose_digest_differs_is_refused(tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    with pytest.raises(ArtifactError, match="that the recipe says: " + "0" * 64):
        fetch(TeacherSection(source="teacher", sha256="0" * 64), base=tmp_path)


def test_a_tampered_folder_is_refused(tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    path = tmp_path / "teacher" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ArtifactError, match="has sha256"):
        fetch(TeacherSection(source="teacher"), base=tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no teacher"):
        fetch(section_of("absent.pt"), base=tmp_path)


# Refusals: what the recipe leaves out


@pytest.mark.parametrize("field", ["architecture", "input"])
def test_what_bare_weights_do_not_say_is_asked_for(state: dict[str, Tensor], tmp_path: Path, field: str) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(RecipeError, match=f"teacher.{field}: is required"):
        fetch(section_of("weights.safetensors", **{field: None}), base=tmp_path)


@pytest.mark.parametrize("source", ["ftp://host/w.pt", "s3://bucket/w.pt", "http://host/w.pt"])
def test_unsafe_and_unknown_schemes_are_refused(source: str) -> None:
    with pytest.raises(RecipeError, match="is not a source") as refusal:
        fetch(section_of(source, sha256="0" * 64))
    assert "https://" in refusal.value.now


def test_custom_code_is_refused_unless_the_recipe_allows_it(
    state: dict[str, Tensor], tiny_teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    (tmp_path / "my_network.py").write_text(
        "from resprout.models.cifar import ThinResNet\n"
        "def make(num_classes, width=8):\n"
        "    return ThinResNet(8, num_classes, width=width)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    fields: dict[str, Any] = {"architecture": "my_network:make", "arguments": {}}
    with pytest.raises(UnsupportedModelError, match="custom code"):
        fetch(section_of("weights.safetensors", **fields), base=tmp_path)
    teacher = fetch(section_of("weights.safetensors", **fields, allow_custom_code=True), base=tmp_path)
    check_is(teacher, tiny_teacher)
    assert teacher.info.custom_code
    artifacts.save_teacher(teacher, tmp_path / "teacher")
    with pytest.raises(UnsupportedModelError, match="custom code"):
        fetch(TeacherSection(source="teacher"), base=tmp_path)
    check_is(fetch(TeacherSection(source="teacher", allow_custom_code=True), base=tmp_path), tiny_teacher)


# Refusals: weights that no dream can be made from


def refusal_of(state: dict[str, Tensor], folder: Path, **fields: Any) -> UnsupportedModelError:
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "weights.safetensors")
    with pytest.raises(UnsupportedModelError) as refusal:
        fetch(section_of("weights.safetensors", **fields), base=folder)
    return refusal.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "bn1.running_var", "fc.bias"])
def test_nan_and_infinity_are_refused(state: dict[str, Tensor], tmp_path: Path, name: str, value: float) -> None:
    state[name].view(-1)[0] = value
    error = refusal_of(state, tmp_path)
    assert "holds NaN or infinity" in error.what
    assert name in error.what


def test_a_teacher_without_batch_norm_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    network = models.build("timm:test_vit", num_classes=4)
    fields = {"architecture": "timm:test_vit", "arguments": {}, "input": InputSection(shape=(3, 160, 160))}
    error = refusal_of(network.state_dict(), tmp_path, **fields)
    assert "timm:test_vit has no BatchNorm layer" in error.what


def test_batch_norm_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    network = models.build("resnet18", num_classes=4)
    error = refusal_of(network.state_dict(), tmp_path, architecture="resnet18", arguments={})
    assert error.what == "resnet18 has 20 BatchNorm layers that were never trained (running mean 0, variance 1)"
    assert "nothing to match" in error.why
    assert "running_mean" in error.now


def test_a_few_untouched_layers_among_trained_ones_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("layer2.0.bn1", "layer3.0.bn2"):
        state[f"{name}.running_mean"].zero_()
        state[f"{name}.running_var"].fill_(1)
    error = refusal_of(state, tmp_path)
    assert "2 of its 9 BatchNorm layers" in error.what
    assert "layer2.0.bn1, layer3.0.bn2" in error.what


def test_statistics_that_alone_are_missing_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    error = refusal_of({name: tensor for name, tensor in state.items() if "running" not in name}, tmp_path)
    assert "holds no BatchNorm statistics, where cifar_resnet8 has 9 BatchNorm layers" in error.what
    assert "all else of the network is there" in error.why
    assert "fold" not in str(error)


def test_where_more_than_statistics_is_missing_nothing_is_guessed(state: dict[str, Tensor], tmp_path: Path) -> None:
    folded = {name: tensor for name, tensor in state.items() if "bn" not in name and "downsample.1" not in name}
    folded |= {name.replace(".weight", ".bias"): torch.zeros(len(w)) for name, w in folded.items() if "conv" in name}
    error = refusal_of(folded, tmp_path)
    assert "36 missing, 7 left over" in error.what
    assert "folded" not in str(error)


def test_a_negative_variance_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["layer1.0.bn1.running_var"][2] = -0.1
    assert "negative running variances in layer1.0.bn1" in refusal_of(state, tmp_path).what


def test_weights_of_another_network_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    error = refusal_of(state, tmp_path, architecture="cifar_resnet20")
    assert re.search(r"\n +- +layer1\.1\.conv1\.weight \[8, 8, 3, 3\]\n", error.what)
    assert "teacher.architecture" in error.now


def test_weights_of_another_shape_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    error = refusal_of(state, tmp_path, arguments={"width": 4})
    assert re.search(r"\n +conv1\.weight \[8, 3, 3, 3\] +conv1\.weight \[4, 3, 3, 3\]\n", error.what)
    assert re.search(r"\n +… 38 more +… 38 more$", error.what)


def test_another_number_of_classes_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    error = refusal_of(state, tmp_path, num_classes=10)
    assert re.search(r"\n +fc\.weight \[4, 32\] +fc\.weight \[10, 32\]", error.what)
    assert "teacher.num_classes" in error.now


def test_further_weights_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    error = refusal_of({**state, "head.weight": torch.ones(3)}, tmp_path)
    assert "1 left over" in error.what
    assert re.search(r"\n +head\.weight \[3\] +-$", error.what)


def test_weights_without_a_head_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("fc")}
    error = refusal_of(headless, tmp_path)
    assert "do not show how many classes" in error.what
    assert "fc.weight" in error.why


def test_an_input_that_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    network = models.build("cifar_vgg11_bn", num_classes=4, arguments={"width": 0.1})
    state = {name: tensor + 0.5 if "running" in name else tensor for name, tensor in network.state_dict().items()}
    error = refusal_of(state, tmp_path, architecture="cifar_vgg11_bn", arguments={"width": 0.1})
    assert "fails on images of shape [3, 16, 16]" in error.what
    assert "teacher.input.shape" in error.now


def test_numbers_are_class_names_where_somebody_gave_them(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    numbers = ("0", "1", "2", "3")
    for class_names, named in ((None, False), (numbers, True), (("a", "b", "c", "d"), True)):
        teacher = fetch(section_of("weights.safetensors", class_names=class_names), base=tmp_path)
        assert teacher.info.named is named
        artifacts.save_teacher(teacher, tmp_path / "teacher")
        again = fetch(TeacherSection(source="teacher"), base=tmp_path)
        assert (again.info.class_names, again.info.named) == (class_names or numbers, named)


def test_the_wrong_number_of_class_names_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    assert "2 class names for 4 classes" in refusal_of(state, tmp_path, class_names=("a", "b")).what
