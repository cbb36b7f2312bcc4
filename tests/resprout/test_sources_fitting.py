"""Checkpoints as people have them: what fits is loaded, whatever is around it; what does not is refused in words."""

from __future__ import annotations

import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

from resprout import artifacts, models
from resprout.errors import UnsupportedModelError
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import fetch
from resprout.sources.fitting import fitted
from resprout.types import Teacher

State = dict[str, Tensor]
Make = Callable[[State], Any]


@pytest.fixture
def state(tiny_teacher: Teacher) -> State:
    return {name: tensor.clone() for name, tensor in tiny_teacher.network.state_dict().items()}


def empty() -> nn.Module:
    return models.as_written("cifar_resnet8", 4, {"width": 8}, (3, 16, 16), False)


def load(content: Any, network: nn.Module | None = None) -> tuple[State, str]:
    """What is loaded of a checkpoint, after it has been a file, and the notes in one text."""
    made, notes = fitted(network or empty(), content, "w.pt", "net")
    return made.state_dict(), "\n".join(notes)


def same(left: State, right: State, *, exact: bool = True) -> bool:
    def alike(name: str) -> bool:
        return torch.equal(left[name], right[name]) if exact else torch.allclose(left[name], right[name], 1e-5, 1e-6)

    weights = [name for name in right if "num_batches" not in name]
    return left.keys() == right.keys() and all(map(alike, weights))


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def scaled(state: State, factor: float = 1.5) -> State:
    return {name: tensor * factor if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def test_a_network_without_batch_norm_is_told_so_before_names_that_differ() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(UnsupportedModelError, match="net has no BatchNorm layer"):
        load({"encoder.layers.0.weight": torch.ones(4, 3, 3, 3)}, network)


# Names


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "backbone.", "net.", "1.", "encoder.", "module.module.", "a.b.c.d."),
        *("_orig_mod.module.", "module._orig_mod.", "model._orig_mod.", "model.module._orig_mod.", "layer1.", "fc."),
    ],
)
@pytest.mark.parametrize("container", ["", "state_dict"])
def test_any_prefix_is_taken_off_and_said(state: State, prefix: str, container: str) -> None:
    content = under(prefix, state)
    loaded, notes = load({container: content, "epoch": 3} if container else content)
    assert same(loaded, state)
    assert notes == f"names: '{prefix}' was taken off"


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"^(layer\d)\.", r"\1.module."),
        (r"^(layer\d)\.", r"\1._orig_mod."),
        (r"^(layer\d\.\d)\.", r"module.\1._checkpoint_wrapped_module."),
        (r"^(layer\d\.|)", r"_fsdp_wrapped_module.\1_fsdp_wrapped_module."),
    ],
)
def test_wrappers_of_parts_are_taken_out_of_names(state: State, pattern: str, replacement: str) -> None:
    content = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
    loaded, notes = load(content)
    assert same(loaded, state)
    assert "was taken out" in notes


HEADS = {
    "beside the backbone": ("backbone.", "head."),
    "outside the backbone": ("model.backbone.", ""),
    "within": ("module.backbone.", "module.classifier.1."),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("container", ["", "state_dict."])
def test_a_head_may_lie_under_another_prefix(state: State, kind: str, container: str) -> None:
    body, head = HEADS[kind]
    content = {container + (head if name.startswith("fc") else body) + name: tensor for name, tensor in state.items()}
    loaded, notes = load(content)
    assert same(loaded, state)
    assert "taken off" in notes
    stem = (container + body).split("backbone")[0]
    another = {f"{stem}aux.fc.weight": torch.ones(4, 32), f"{stem}aux.fc.bias": torch.ones(4)}
    with pytest.raises(UnsupportedModelError, match="do not fit net: 2 missing"):  # which of two heads is meant?
        load({**content, **another})
    with pytest.raises(UnsupportedModelError, match="1 left over"):
        load({**content, f"{container}{head}neck.weight": torch.ones(32, 32)})


def test_each_of_two_networks_has_its_own_head(state: State) -> None:
    def parts(factor: float) -> State:
        scaled_state = scaled(state, factor)
        return {("head." if name.startswith("fc") else "backbone.") + name: w for name, w in scaled_state.items()}

    loaded, notes = load({"state_dict": parts(1), "ema_state_dict": parts(2)})
    assert same(loaded, scaled(state, 2))
    assert "ema_state_dict.backbone was taken" in notes


@pytest.mark.parametrize("name", ["bn1.weight", "bn1.running_mean", "layer1.0.bn2.bias"])
def test_a_layers_weights_never_stand_for_those_of_another(state: State, name: str) -> None:
    del state[name]
    with pytest.raises(UnsupportedModelError, match="do not fit net: 1 missing"):
        load(state)


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network


class Normalised(Wrapped):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_prefix_that_only_the_network_has_is_put_before(state: State, prefix: str) -> None:
    loaded, notes = load(under(prefix, state), Wrapped(Wrapped(empty())))
    assert same(loaded, under("model.model.", state))
    assert "names: 'model.model.' was put before" in notes


def test_a_networks_own_checkpoint_is_one_set_of_weights_however_much_of_it_is_needed(state: State) -> None:
    content = {**under("model.", state), "mean": torch.ones(1, 3, 1, 1)}
    loaded, notes = load({"state_dict": content}, Normalised(empty()))
    assert same(loaded, content)
    assert notes == ""


def test_a_normalisation_that_the_network_brings_itself_stays(state: State) -> None:
    loaded, notes = load(state, Normalised(empty()))
    assert same({name: tensor for name, tensor in loaded.items() if name != "mean"}, under("model.", state))
    assert torch.equal(loaded["mean"], torch.full((1, 3, 1, 1), 0.5))
    assert "kept as the network is built, for they are not in the checkpoint: mean" in notes


def test_a_tensor_that_two_layers_share_may_be_there_once() -> None:
    network = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in ("a", "b", "c")})
    network["b"].weight = network["a"].weight
    content = {"x.b.weight": torch.rand(3, 3), "x.c.weight": torch.rand(3, 3)}
    loaded, _ = load(content, network)
    assert torch.equal(loaded["a.weight"], content["x.b.weight"])
    assert torch.equal(loaded["c.weight"], content["x.c.weight"])


# Containers


def optimizer_of(state: State) -> dict[str, Any]:
    parameters = [nn.Parameter(tensor.clone()) for tensor in state.values() if tensor.ndim > 1]
    optimizer = torch.optim.Adam(parameters)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    return optimizer.state_dict()


def split(state: State) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        parts.setdefault(first, {})[rest] = tensor
    return parts


CONTAINERS: dict[str, Make] = {
    "usual": lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
    "any key": lambda state: {"G": state},
    "deep": lambda state: {"checkpoint": {"model": {"weights": state}}, "config": {"lr": 0.1, "betas": (0.9, 0.99)}},
    "with an optimizer": lambda state: {"model": state, "optimizer": optimizer_of(state), "scheduler": {"last": 1}},
    "in a tuple": lambda state: (state, optimizer_of(state)),
    "in a list": lambda state: [3, {"net": state}],
    "one mapping a layer": split,
    "with a step": lambda state: {"model": state, "step": torch.tensor(7), "rng": torch.get_rng_state()},
    "ordered": lambda state: OrderedDict(model=OrderedDict(state)),
    "twice the same": lambda state: {"model": state, "state_dict": dict(state)},
    "without counts": lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_weights_are_found_wherever_they_lie(state: State, tmp_path: Path, kind: str) -> None:
    torch.save(CONTAINERS[kind](state), tmp_path / "w.pt")
    loaded, notes = load(torch.load(tmp_path / "w.pt", weights_only=True))
    assert same(loaded, state)
    assert notes == ""


# Extras


EXTRAS: dict[str, tuple[Make, str]] = {
    "operations counted": (lambda s: {**s, "conv1.total_ops": torch.zeros(1), "total_params": torch.ones(1)}, "total_"),
    "integers": (lambda s: {**s, "accuracy.counts": torch.zeros(4, dtype=torch.int64)}, "accuracy.counts"),
    "a loss": (lambda s: {**s, "criterion.weight": torch.ones(4)}, "criterion.weight"),
    "centres of a loss": (lambda s: {**s, "loss_fn.centers": torch.ones(4, 32)}, "loss_fn.centers"),
    "a normalisation": (lambda s: {**s, "mean": torch.ones(3), "std": torch.ones(3)}, "state_dict.std"),
    "a normalisation before": (lambda s: {"0.mean": torch.ones(3), **under("1.", s)}, "0.mean"),
    "a temperature": (lambda s: {**s, "temperature": torch.ones(())}, "temperature"),
    "a projector": (lambda s: {**under("net.", s), "projector.0.weight": torch.ones(8, 8)}, "projector.0.weight"),
    "another teacher": (lambda s: {**under("student.", s), "teacher.fc.weight": torch.ones(9, 9)}, "teacher.fc.weight"),
}


@pytest.mark.parametrize("kind", EXTRAS)
def test_what_is_no_layer_of_the_network_is_passed_over_and_named(state: State, kind: str) -> None:
    make, named = EXTRAS[kind]
    loaded, notes = load({"state_dict": make(state)})
    assert same(loaded, state)
    assert "passed over, as no layer of the network: " in notes
    assert named in notes


LAYERS: dict[str, Make] = {
    "another head": lambda s: {**s, "fc2.weight": torch.ones(4, 32)},
    "a bias": lambda s: {**s, "conv1.bias": torch.ones(8)},
    "a deeper block": lambda s: {**s, "layer1.0.conv3.weight": torch.ones(8, 8, 1, 1)},
    "a gate": lambda s: {**s, "layer1.0.gate": torch.ones(1)},
    "a norm": lambda s: {**s, "norm.weight": torch.ones(32)},
    "a mask": lambda s: {**s, "conv1.mask": torch.ones(8, 3, 3, 3, dtype=torch.bool)},
    "an integer weight": lambda s: {**s, "fc.weight_packed.weight": torch.ones(4, 32, dtype=torch.int8)},
    "a parameter of the root": lambda s: {**s, "pos_embed": torch.ones(1, 4, 32)},
    "under a prefix": lambda s: {**under("model.", s), "model.fc2.weight": torch.ones(4, 32)},
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_that_the_network_lacks_is_never_passed_over(state: State, kind: str) -> None:
    content = LAYERS[kind](state)
    (extra,) = [name for name in content if name.removeprefix("model.") not in state]
    with pytest.raises(UnsupportedModelError, match="do not fit net: 1 left over") as refusal:
        load(content)
    assert extra in refusal.value.what


# Several sets of weights


def averaged(state: State, count: int = 5) -> State:
    return {**under("module.", state), "n_averaged": torch.tensor(count)}


AVERAGED: dict[str, tuple[Make, str]] = {
    "model_ema": (lambda s: {"model": s, "model_ema": averaged(scaled(s))}, "model_ema.module"),
    "timm": (lambda s: {"state_dict": s, "state_dict_ema": scaled(s)}, "state_dict_ema"),
    "ema first": (lambda s: {"ema": scaled(s), "model": s}, "ema"),
    "ema within": (lambda s: {"ema": {"module": scaled(s), "decay": 0.9}, "model": s}, "ema.module"),
    "prefixes": (lambda s: {"sd": {**under("model.", s), **under("ema_model.", scaled(s))}}, "sd.ema_model"),
    "beside plain names": (lambda s: {**s, **under("ema.", scaled(s))}, "ema"),
    "swa": (lambda s: {"model": under("module.", s), "swa_model": averaged(scaled(s))}, "swa_model.module"),
    "by its count": (lambda s: {"model": s, "second": averaged(scaled(s))}, "second.module"),
    "callbacks": (
        lambda s: {"state_dict": under("model.", s), "callbacks": {"EMA": {"ema_weights": under("model.", scaled(s))}}},
        "callbacks.EMA.ema_weights.model",
    ),
    "Lightning's averaging": (
        lambda s: {"state_dict": scaled(s), "current_model_state": s, "averaging_state": {"n": torch.ones(())}},
        "state_dict",
    ),
}


@pytest.mark.parametrize("kind", AVERAGED)
def test_averaged_weights_are_preferred_and_the_choice_is_said(state: State, kind: str) -> None:
    make, called = AVERAGED[kind]
    loaded, notes = load(make(state))
    assert same(loaded, scaled(state))
    assert f"weights: {called} was taken, which is averaged over training; " in notes
    assert notes.split("; ")[1].split("\n")[0].endswith(" fits too")


def test_an_average_that_never_began_is_not_preferred(state: State) -> None:
    with pytest.raises(UnsupportedModelError, match="holds 2 sets of weights that fit"):
        load({"model": state, "swa_model": averaged(scaled(state), count=0)})


def test_averaged_weights_without_statistics_are_not_taken_but_named(state: State) -> None:
    shadow = {name: tensor for name, tensor in scaled(state).items() if "running" not in name}
    loaded, notes = load({"model": under("module.", state), "ema": {"shadow": under("module.", shadow)}})
    assert same(loaded, state)
    assert "weights: ema.shadow.module was not taken, which is averaged but lacks BatchNorm's statistics" in notes


def test_an_averaged_model_alone_is_a_network_like_any_other(tiny_teacher: Teacher, state: State) -> None:
    loaded, notes = load(AveragedModel(tiny_teacher.network).state_dict())
    assert same(loaded, state)
    assert "fits too" not in notes


@pytest.mark.parametrize(
    ("first", "second"),
    [("student.", "teacher."), ("model.", "best_model."), ("", "old."), ("ema_fast.", "ema_slow."), ("q.", "k.")],
)
def test_of_two_sets_that_fit_alike_none_is_guessed(state: State, first: str, second: str) -> None:
    with pytest.raises(UnsupportedModelError, match="holds 2 sets of weights that fit: ") as refusal:
        load({**under(first, state), **under(second, scaled(state))})
    assert second.rstrip(".") in refusal.value.what
    assert "nothing says which is meant" in refusal.value.why


def test_the_set_with_the_shapes_of_the_network_is_taken(state: State) -> None:
    other = {**scaled(state), "fc.weight": torch.ones(1000, 32), "fc.bias": torch.ones(1000)}
    loaded, _ = load({"pretrained": other, "model": state})
    assert same(loaded, state)


# Reparametrised weights


def changed(wrap: Callable[[nn.Module], object], state: State) -> nn.Module:
    network = empty()
    network.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm as hooks is deprecated; people have it
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                wrap(module)
    with torch.no_grad():  # training brings spectral norm's vectors near the singular ones
        for _ in range(30):
            network(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return network.eval()


class Doubled(nn.Module):
    def forward(self, original: Tensor) -> Tensor:
        return 2 * original


REPARAMETRISED: dict[str, Callable[[nn.Module], object]] = {
    "a pruning mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "spectral norm, as hooks": nn.utils.spectral_norm,
    "spectral norm": parametrizations.spectral_norm,
    "weight norm, as hooks": nn.utils.weight_norm,
    "weight norm": parametrizations.weight_norm,
    "weight norm of all": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "weight norm along inputs": lambda layer: parametrizations.weight_norm(layer, dim=1),
}


@pytest.mark.parametrize("kind", REPARAMETRISED)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_reparametrised_weights_become_what_they_stand_for(state: State, kind: str, prefix: str) -> None:
    network = changed(REPARAMETRISED[kind], state)
    content = under(prefix, network.state_dict())
    expected, _ = models.plain(network)
    for own in (empty(), changed(REPARAMETRISED[kind], scaled(state))):
        loaded, notes = load(content, own)
        assert same(loaded, {name: expected.state_dict()[name] for name in loaded}, exact=False)
        assert f"{kind.split(' of')[0].split(' along')[0].split(',')[0]} was folded into plain weights" in notes
        if kind == "a pruning mask":
            assert torch.equal(loaded["fc.weight"] == 0, content[f"{prefix}fc.weight_mask"] == 0)


def square_and_transposed() -> tuple[nn.Module, ...]:
    return nn.Linear(6, 6), nn.ConvTranspose2d(4, 4, 3), nn.ConvTranspose2d(4, 6, 3), nn.Conv2d(9, 1, 1)


def test_square_and_transposed_layers_are_divided_by_their_own_spectral_norm() -> None:
    network = nn.Sequential(*map(parametrizations.spectral_norm, square_and_transposed())).eval()
    content = network.state_dict()
    expected, _ = models.plain(network)
    loaded, _ = load(content, nn.Sequential(*square_and_transposed()))
    assert same(loaded, {name: expected.state_dict()[name] for name in loaded}, exact=False)


def test_a_networks_own_parametrisation_is_folded_by_the_network(state: State) -> None:
    def wrap(layer: nn.Module) -> None:
        parametrize.register_parametrization(layer, "weight", Doubled(), unsafe=True)

    content = changed(wrap, state).state_dict()
    loaded, notes = load(content, changed(wrap, scaled(state)))
    assert torch.equal(loaded["fc.weight"], 2 * content["fc.parametrizations.weight.original"])
    assert "Doubled was folded into plain weights" in notes
    with pytest.raises(UnsupportedModelError, match="do not fit"):
        load(content)


def test_plain_weights_fit_a_network_that_is_reparametrised(state: State) -> None:
    loaded, _ = load(state, changed(nn.utils.spectral_norm, scaled(state)))
    assert same({name: loaded[name] for name in state}, state)


# Numbers


def sparse(layout: torch.layout) -> Make:
    def make(state: State) -> State:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that CSR is in beta
            return {name: w.to_sparse(layout=layout) if w.ndim == 2 else w for name, w in state.items()}

    return make


PLAIN_NUMBERS: dict[str, Make] = {
    "double": lambda s: {name: w.double() if w.is_floating_point() else w for name, w in s.items()},
    "parameters": lambda s: {name: nn.Parameter(w) if w.is_floating_point() else w for name, w in s.items()},
    "transposed": lambda s: {name: w.t().contiguous().t() if w.ndim == 2 else w for name, w in s.items()},
    "channels last": lambda s: {n: w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for n, w in s.items()},
    "views of one": lambda s: {name: torch.stack([w, w])[1] for name, w in s.items()},
    "counts as floats": lambda s: {name: w.float() for name, w in s.items()},
    "COO": sparse(torch.sparse_coo),
    "CSR": sparse(torch.sparse_csr),
    "CSC": sparse(torch.sparse_csc),
}


@pytest.mark.parametrize("kind", PLAIN_NUMBERS)
def test_weights_are_read_however_they_are_stored(state: State, tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(PLAIN_NUMBERS[kind](state), tmp_path / "w.pt")
        loaded, notes = load(torch.load(tmp_path / "w.pt", weights_only=True))
    assert same(loaded, state)
    assert notes == ""
    assert all(weight.layout == torch.strided and not weight.requires_grad for weight in loaded.values())


ODD_NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.int8": lambda w: (100 * w).to(torch.int8),
    "torch.uint8": lambda w: (100 * w.abs()).to(torch.uint8),
    "torch.int64": lambda w: w.long(),
    "torch.bool": lambda w: w > 0,
    "torch.float8_e4m3fn": lambda w: w.to(torch.float8_e4m3fn),
    "torch.float8_e5m2": lambda w: w.to(torch.float8_e5m2),
    "torch.complex64": lambda w: w.to(torch.complex64),
    "torch.qint8": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "meta device": lambda w: w.to("meta"),
}


@pytest.mark.parametrize("kind", ODD_NUMBERS)
@pytest.mark.parametrize("scale", [False, True])
def test_numbers_that_are_no_weights_are_refused_by_name(state: State, tmp_path: Path, kind: str, scale: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that quantised tensors are deprecated
        content = {name: ODD_NUMBERS[kind](w) if name == "layer1.0.conv1.weight" else w for name, w in state.items()}
        if scale:
            content["layer1.0.conv1.scale"] = torch.ones(())
        torch.save({"model": content}, tmp_path / "w.pt")
        section = TeacherSection(
            source=str(tmp_path / "w.pt"),
            architecture="cifar_resnet8",
            arguments={"width": 8},
            input=InputSection(shape=(3, 16, 16)),
        )
        with pytest.raises(UnsupportedModelError) as refusal:
            fetch(section)
    assert "model.layer1.0.conv1.weight in 'w.pt' is " in refusal.value.what
    assert kind in refusal.value.what
    assert "dequantised" in refusal.value.now


# What does not fit


def test_names_that_do_not_fit_stand_side_by_side_nearest_first(state: State) -> None:
    content = {name.replace("fc.", "classifier."): tensor for name, tensor in under("model.", state).items()}
    content["model.bn_1.weight"] = content.pop("model.bn1.weight")
    content["model.layer1.0.conv1.weight"] = torch.ones(8, 8, 5, 5)
    with pytest.raises(UnsupportedModelError) as refusal:
        load({"state_dict": content})
    first, head, *rows = [re.split(r" {2,}", line.strip()) for line in refusal.value.what.splitlines()]
    assert first[0].startswith("the weights of 'w.pt' do not fit net: 3 missing, 1 of another shape, 3 left over")
    assert head == ["in 'w.pt'", "in net"]
    assert rows[0] == ["state_dict.model.layer1.0.conv1.weight [8, 8, 5, 5]", "layer1.0.conv1.weight [8, 8, 3, 3]"]
    assert rows[1] == ["state_dict.model.bn_1.weight [8]", "bn1.weight [8]"]
    assert sorted(row[1] for row in rows[2:] if row[1] != "-") == ["fc.bias [4]", "fc.weight [4, 32]"]
    assert sorted(row[0] for row in rows[2:] if row[0] != "-") == [
        "state_dict.model.classifier.bias [4]",
        "state_dict.model.classifier.weight [4, 32]",
    ]


def test_only_the_first_rows_of_two_strangers_are_shown(state: State) -> None:
    stranger = models.build("resnet18", num_classes=4).state_dict()
    with pytest.raises(UnsupportedModelError) as refusal:
        load({f"encoder.{name}": tensor for name, tensor in stranger.items()})
    lines = refusal.value.what.splitlines()
    assert len(lines) == 11
    assert all("encoder." in line for line in lines[2:10])
    assert "more" in lines[-1]
    assert "folded" not in str(refusal.value)


@pytest.mark.parametrize("content", [{"a": torch.ones(3)}, {"step": torch.tensor(3)}])
def test_tensors_that_have_nothing_of_a_network_are_refused(content: State) -> None:
    with pytest.raises(UnsupportedModelError, match="do not fit net: 47 missing, 1 left over") as refusal:
        load(content)
    assert "conv1.weight [8, 3, 3, 3]" in refusal.value.what


# Whatever happens to a checkpoint

CHANGES: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "one is gone": lambda s, name: {other: w for other, w in s.items() if other != name},
    "one is renamed": lambda s, name: {f"{other}x" if other == name else other: w for other, w in s.items()},
    "one has a prefix": lambda s, name: {f"module.{other}" if other == name else other: w for other, w in s.items()},
    "all have a prefix": lambda s, name: under("layer1.", s),
    "one is flat": lambda s, name: {**s, name: s[name].reshape(-1)},
    "one is none": lambda s, name: {**s, name: None},
    "one is integer": lambda s, name: {**s, name: s[name].to(torch.int8)},
    "one is masked": lambda s, name: {**s, f"{name}_orig": s[name], f"{name}_mask": torch.zeros_like(s[name])},
    "one is doubled": lambda s, name: {**s, f"old.{name}": 2 * s[name]},
    "one is swapped": lambda s, name: {**s, name: 2 * s[name]} if "num_batches" not in name else s,
    "all are deeper": lambda s, name: {"deep": [s, {"step": torch.ones(())}]},
    "all are averaged": lambda s, name: {"now": s, "ema": {other: 2 * w for other, w in s.items() if w is not None}},
}


@hypothesis.given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 1000)), max_size=3))
@hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_a_network_is_never_loaded_in_part(state: State, steps: list[tuple[str, int]]) -> None:
    content: Any = state
    for change, place in steps:
        if all(isinstance(value, Tensor | None) for value in content.values()):  # not deeper yet
            content = CHANGES[change](content, list(content)[place % len(content)])
            content = {name: w for name, w in content.items() if w is not None}
    try:
        loaded, _ = load(content)
    except UnsupportedModelError:
        return
    for name, tensor in state.items():
        if "num_batches" not in name:
            assert any(torch.equal(loaded[name], factor * tensor) for factor in (1, 2, 4, 8))


# The number of classes, where the recipe does not say it


@pytest.mark.parametrize(
    "make",
    [
        lambda s: {"state_dict": under("model.", s)},
        lambda s: {"model": s, "ema": under("module.", scaled(s))},
        lambda s: {**s, "total_ops": torch.zeros(1)},
        lambda s: changed(REPARAMETRISED["spectral norm"], s).state_dict(),
    ],
)
def test_the_number_of_classes_is_read_off_whatever_fits(state: State, tmp_path: Path, make: Make) -> None:
    torch.save(make(state), tmp_path / "w.pt")
    input_ = InputSection(shape=(3, 16, 16))
    section = TeacherSection(
        source=str(tmp_path / "w.pt"), architecture="cifar_resnet8", arguments={"width": 8}, input=input_
    )
    teacher = fetch(section)
    assert teacher.info.num_classes == 4
    assert teacher.notes


@pytest.fixture
def own_code(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TeacherSection:
    """The section of a function that takes no number of classes."""
    (tmp_path / "fixed_net.py").write_text(
        "from resprout.models.cifar import ThinResNet\n"
        "def net():\n"
        "    return ThinResNet(8, 4, width=8)\n"
        "import torch\n"
        "def wrapped(wrap):\n"
        "    made = net()\n"
        "    for layer in list(made.modules()):\n"
        "        if hasattr(layer, 'weight') and layer.weight.ndim > 1:\n"
        "            wrap(layer)\n"
        "    return made\n"
        "def spectral():\n"
        "    return wrapped(torch.nn.utils.spectral_norm)\n"
        "def normed():\n"
        "    return wrapped(torch.nn.utils.parametrizations.weight_norm)\n"
        "def synchronised():\n"
        "    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(net())\n"
        "def parallel():\n"
        "    return torch.nn.DataParallel(net())\n"
        "def doubled():\n"
        "    return net().double()\n"
        "def only_four(num_classes):\n"
        "    assert num_classes == 4\n"
        "    return net()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fixed_net", raising=False)
    torch.save(state, tmp_path / "w.pt")
    return TeacherSection(
        source=str(tmp_path / "w.pt"),
        architecture="fixed_net:net",
        allow_custom_code=True,
        input=InputSection(shape=(3, 16, 16)),
    )


def test_the_number_of_classes_of_a_function_that_takes_none_is_that_of_its_logits(own_code: TeacherSection) -> None:
    assert fetch(own_code).info.num_classes == 4


@pytest.mark.parametrize("function", ["spectral", "normed", "synchronised", "parallel", "doubled"])
def test_a_network_that_is_not_plain_is_fetched_rehearsed_and_stored_as_one_that_is(
    own_code: TeacherSection, tmp_path: Path, function: str
) -> None:
    teacher = fetch(own_code.model_copy(update={"architecture": f"fixed_net:{function}"}))
    artifacts.save_teacher(teacher, tmp_path / "teacher")
    loaded = artifacts.load_teacher(tmp_path / "teacher", allow_custom_code=True)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), teacher.network(images))
    assert set(loaded.network.state_dict()) == set(empty().state_dict())
    assert loaded.notes == teacher.notes
    assert bool(teacher.notes) is (function != "parallel")


def test_a_function_that_takes_few_numbers_of_classes_wants_it_in_the_recipe(own_code: TeacherSection) -> None:
    section = own_code.model_copy(update={"architecture": "fixed_net:only_four"})
    with pytest.raises(UnsupportedModelError, match="your function fixed_net:only_four failed") as refusal:
        fetch(section)
    assert refusal.value.now.startswith("give teacher.num_classes; or ")
    assert fetch(section.model_copy(update={"num_classes": 4})).info.num_classes == 4


# Files


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        (b"\n\n<HTML><HEAD>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x1f\x8b\x08\x00", "is compressed by gzip"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=f"teacher 'w.pt' {what}, not weights") as refusal:
        fetch(TeacherSection(source=str(tmp_path / "w.pt")))
    assert refusal.value.now


def test_tensors_under_numbers_are_refused(state: State, tmp_path: Path) -> None:
    torch.save(dict(enumerate(state.values())), tmp_path / "w.pt")
    with pytest.raises(UnsupportedModelError, match="holds no state dict, but 0, 1, 2, 3, 4, which are no names"):
        fetch(TeacherSection(source=str(tmp_path / "w.pt")))


def test_a_numpy_number_is_no_code_and_is_said_how_to_save(state: State, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    torch.save({"state_dict": state, "best": numpy.float64(0.9)}, tmp_path / "w.pt")
    with pytest.raises(UnsupportedModelError, match="holds numpy's numbers beside tensors") as refusal:
        fetch(TeacherSection(source=str(tmp_path / "w.pt")))
    assert "float(best_acc)" in refusal.value.now
