from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from resprout import models
from resprout.batchnorm import batch_norm_layers
from resprout.errors import UnsupportedModelError

SLOW = ("vgg16_bn", "vgg19_bn", "wide_resnet50_2")
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in models.names()]


@pytest.mark.parametrize("architecture", ALL)
def test_every_architecture_takes_any_number_of_classes_and_small_images(architecture: str) -> None:
    network = models.build(architecture, num_classes=7, input_shape=(3, 32, 32)).eval()
    with torch.no_grad():
        logits = network(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert batch_norm_layers(network)


# the widths of He et al., table 6, plus the projection shortcuts and BatchNorm that it leaves out
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_cifar_resnets_have_the_papers_size(depth: int, millions: float) -> None:
    network = models.build(f"cifar_resnet{depth}", num_classes=10)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert len([name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]) == depth - 1 + 2


def test_resnet20_has_the_names_that_checkpoints_use() -> None:
    names = set(models.build("cifar_resnet20", num_classes=10).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "fc.bias"} <= names
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= names
    assert "layer1.0.downsample.0.weight" not in names


@pytest.mark.parametrize(
    ("architecture", "size"), [("cifar_resnet20", 8), ("cifar_resnet18", 4), ("cifar_mobilenet_v2", 4)]
)
def test_small_image_networks_keep_resolution_where_large_ones_throw_it_away(architecture: str, size: int) -> None:
    network = models.build(architecture, num_classes=2).eval()
    last = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    shapes = []
    with torch.no_grad(), last.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape)):
        network(torch.zeros(1, 3, 32, 32))
    assert shapes[0][2:] == (size, size)


def test_arguments_and_channels_reach_the_constructor() -> None:
    thin = models.build("cifar_resnet20", num_classes=10, arguments={"width": 4}, input_shape=(1, 28, 28))
    assert thin.conv1.weight.shape == (4, 1, 3, 3)
    half = models.build("cifar_vgg11_bn", num_classes=10, arguments={"width": 0.5})
    assert half.classifier.in_features == 256
    assert models.build("cifar_resnet18", num_classes=3, input_shape=(1, 32, 32)).conv1.in_channels == 1


def test_weights_are_the_same_each_time_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, second = (models.build("cifar_resnet8", num_classes=4).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnsupportedModelError, match="no architecture 'cifar_resnt20'") as refusal:
        models.build("cifar_resnt20", num_classes=10)
    assert refusal.value.now == "did you mean cifar_resnet20?"


@pytest.mark.parametrize("architecture", ["cifar_resnet20", "resnet18"])
def test_arguments_that_do_not_suit_are_refused(architecture: str) -> None:
    with pytest.raises(UnsupportedModelError, match="depth_of_field") as refusal:
        models.build(architecture, num_classes=10, arguments={"depth_of_field": 3})
    assert "teacher.arguments" in refusal.value.now


def test_torchvision_networks_refuse_grey_images() -> None:
    with pytest.raises(UnsupportedModelError, match="3 channels, not 1"):
        models.build("resnet18", num_classes=10, input_shape=(1, 32, 32))


@pytest.mark.parametrize("architecture", ["timm:resnet10t", "timm://resnet10t", "resnet10t", "timm:resnet10t.c3_in1k"])
def test_timm_networks_go_by_several_names(architecture: str) -> None:
    pytest.importorskip("timm")
    network = models.build(architecture, num_classes=7, input_shape=(1, 32, 32)).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    assert batch_norm_layers(network)


def test_a_plain_name_is_torchvisions_and_a_prefixed_one_timms() -> None:
    pytest.importorskip("timm")
    assert type(models.build("resnet18", num_classes=2)).__module__.startswith("torchvision")
    assert type(models.build("timm:resnet18", num_classes=2)).__module__.startswith("timm")


@pytest.mark.parametrize("architecture", ["timm:resnet18", "resnet10t"])
def test_missing_timm_says_how_to_get_it(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UnsupportedModelError) as refusal:
        models.build(architecture, num_classes=2)
    assert "pip install timm" in refusal.value.now


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_models.py").write_text(
        "from pathlib import Path\n"
        "from torch import nn\n"
        "Path(__file__).with_name('was_run').touch()\n"
        "def linear(num_classes, size=4):\n"
        "    return nn.Linear(size, num_classes)\n"
        "def number(num_classes):\n"
        "    return num_classes\n"
        "def pair(num_classes):\n"
        "    return linear(num_classes), num_classes\n"
        "def nothing(num_classes):\n"
        "    linear(num_classes)\n"
        "TEN = 10\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(4, num_classes)\n"
        "    @classmethod\n"
        "    def from_name(cls, **given):\n"
        "        return cls(**given)\n"
        "def keywords(**given):\n"
        "    return linear(**given)\n"
        "def raises(num_classes, word=''):\n"
        "    raise RuntimeError('no weights')\n"
        "def misuses(num_classes):\n"
        "    return num_classes + 'a'\n"
        "def in_torch(num_classes):\n"
        "    return nn.Linear(num_classes, 'a')\n"
        "def imports(num_classes):\n"
        "    import absent\n"
        "def leaves(num_classes):\n"
        "    raise SystemExit(2)\n"
        "def silent(num_classes):\n"
        "    assert num_classes == 2\n"
        "def fixed():\n"
        "    return linear(3)\n"
        "def half(num_classes):\n"
        "    return linear(num_classes).half()\n"
        "def lazily(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))\n"
        "def meddles(num_classes):\n"
        "    import torch\n"
        "    torch.set_grad_enabled(False)\n"
        "    torch.set_default_dtype(torch.float64)\n"
        "    return linear(num_classes)\n"
        "import functools\n"
        "partial = functools.partial(linear, size=4)\n"
        "network = linear(3)\n"
        "def again(num_classes):\n"
        "    return network\n"
        "def inference(num_classes):\n"
        "    import torch\n"
        "    with torch.inference_mode():\n"
        "        return linear(num_classes)\n"
    )
    (tmp_path / "own_slip.py").write_text("def net(num_classes)\n    pass\n")
    (tmp_path / "own_import.py").write_text("from os import absent\n")
    (tmp_path / "own_raise.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own_models", "own_slip", "own_import", "own_raise"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_custom_code_is_not_even_imported_unless_allowed(own_code: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="own_models:linear is custom code") as refusal:
        models.build("own_models:linear", num_classes=3)
    assert "allow_custom_code" in refusal.value.now
    assert not (own_code / "was_run").exists()


def test_allowed_custom_code_is_called_with_its_arguments(own_code: Path) -> None:
    network = models.build("own_models:linear", num_classes=3, arguments={"size": 9}, allow_custom_code=True)
    assert network.weight.shape == (3, 9)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("own_models:absent", "cannot be imported"),
        ("own_models:linera", "cannot be imported"),
        ("own_models:Net.from_nam", "Net has no from_nam"),
        ("no_such_package.at_all:make", "cannot be imported"),
        ("own_models:number", "gives int, not a torch"),
        ("own_models:pair", "gives tuple, not a torch"),
        ("own_models:nothing", "gives NoneType, not a torch"),
        ("own_models:Path", "gives PosixPath, not a torch"),
        ("own_models:TEN", "is int, not a torch"),
    ],
)
def test_custom_code_that_gives_no_network_is_refused(own_code: Path, architecture: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        models.build(architecture, num_classes=3, allow_custom_code=True)


@pytest.mark.parametrize(
    "function",
    [
        "linear",
        "Net",
        "Net.from_name",
        "keywords",
        "partial",
        "fixed",
        "network",
        "half",
        "lazily",
        "again",
        "inference",
    ],
)
def test_whatever_gives_a_network_will_do(own_code: Path, function: str) -> None:
    first, second = (
        models.build(f"own_models:{function}", num_classes=3, input_shape=(1, 1, 4), allow_custom_code=True)
        for _ in range(2)
    )
    assert first is not second
    assert not any(parameter.is_inference() for parameter in first.parameters())
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    assert first(torch.zeros(1, 1, 1, 4)).reshape(1, -1).shape == (1, 3)


@pytest.mark.parametrize(
    ("architecture", "what"),
    [
        ("own_models:raises", "your function own_models:raises failed: RuntimeError: no weights, in FILE line 22"),
        ("own_models:misuses", "your function own_models:misuses failed: TypeError: unsupported operand"),
        ("own_models:in_torch", "your function own_models:in_torch failed: TypeError: "),
        ("own_models:imports", "your function own_models:imports failed: ModuleNotFoundError: No module named 'abs"),
        ("own_models:leaves", "your function own_models:leaves failed: SystemExit: 2, in FILE line"),
        ("own_models:silent", "your function own_models:silent failed: AssertionError, in FILE line"),
        ("own_slip:net", "your module own_slip failed: SyntaxError: expected ':', in FILE line 1"),
        ("own_import:net", "your module own_import failed: ImportError: cannot import name 'absent' from 'os'"),
        ("own_raise:net", "your module own_raise failed: ZeroDivisionError: division by zero, in FILE line 1"),
    ],
)
def test_what_fails_in_own_code_is_told_as_theirs_with_the_line(own_code: Path, architecture: str, what: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        models.build(architecture, num_classes=3, allow_custom_code=True)
    module = architecture.partition(":")[0]
    file = str(own_code / f"{module}.py")
    assert what in refusal.value.what.replace(file, "FILE")
    assert f"in {file} line " in refusal.value.what
    assert "your own code" in refusal.value.why
    assert f"import {module}" in refusal.value.now
    assert "teacher.arguments" not in refusal.value.now


def test_own_code_that_fails_can_be_tried_with_the_command_that_is_named(own_code: Path) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        models.build("own_models:raises", num_classes=3, arguments={"word": "ä b"}, allow_custom_code=True)
    assert "own_models.raises(num_classes=3, word='ä b')" in refusal.value.now


def test_arguments_that_an_own_function_does_not_take_are_refused(own_code: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="depth") as refusal:
        models.build("own_models:linear", num_classes=3, arguments={"depth": 9}, allow_custom_code=True)
    assert refusal.value.now == "correct teacher.arguments"


def test_own_code_leaves_torch_as_it_was(own_code: Path) -> None:
    models.build("own_models:meddles", num_classes=3, allow_custom_code=True)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_custom_code_beside_the_recipe_comes_after_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_beside.py").write_text(
        "from torch import nn\ndef make(num_classes): return nn.Linear(1, num_classes)"
    )
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('taken for the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    with pytest.raises(UnsupportedModelError, match="custom code"):
        models.build("made_beside:make", num_classes=3)
    assert str(tmp_path) not in sys.path
    assert models.build("made_beside:make", num_classes=3, allow_custom_code=True).weight.shape == (3, 1)
    assert sys.path[-1] == str(tmp_path)
    with pytest.raises(UnsupportedModelError) as refused:
        models.build("colorsys:make", num_classes=3, allow_custom_code=True)
    assert "comes before colorsys.py in the working folder" in refused.value.why
