"""A rehearsal of a run: two images through all that stages do with a network, before anything is built on it.

What a network cannot do is refused here, in seconds and in words about the network, and not after an hour of work.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from resprout import precision
from resprout.artifacts import load_teacher, save_teacher
from resprout.batchnorm import batch_norm_layers
from resprout.channels import alike
from resprout.classifier import classifier, tensors_in
from resprout.errors import ResproutError, UnsupportedModelError
from resprout.hooks import each_use
from resprout.models import checks
from resprout.models.own import place
from resprout.progress import Progress, Report, silent
from resprout.pruning.candidates import candidates_of
from resprout.recipe import DeepInversionSection, DistillationSection
from resprout.recovery import try_step
from resprout.statistics import extract
from resprout.synthesis import synthesize
from resprout.types import InputSpec, PruningMask, Teacher
from resprout.wording import listed

CHECKS = 4
_TAKES_IMAGES = (
    "its forward must take one batch of images, shape (batch, channels, height, width), and return logits, shape "
    "(batch, classes); or correct teacher.input.shape"
)
_DIFFERENTIABLE = "compute the logits from the images in torch, without no_grad, detach, numpy or rounding on the way"
_TRAINABLE = "let it answer images alone after network.train() too, and let autograd through"
_REBUILT = "let the architecture's function build the same network each time"


def rehearse(teacher: Teacher, *, device: torch.device | None = None, report: Report = silent) -> Teacher:
    """Try a teacher as a run will use it.

    It answers, in the layouts and number formats that stages compute in. Gradients flow back to the image. A step of
    synthesis is done, statistics are estimated anew, a pruned copy is trained for a step. The network is written and
    read.

    Args:
        teacher: the layout of its network's images is set.
        device: default: the first GPU, or the CPU.
        report: is told how many checks are done, and after how many seconds.

    Returns:
        The teacher, with what was found out: whether it takes images channels last, whether it computes in bfloat16,
        and notes on what a person would want to know.

    Raises:
        UnsupportedModelError: it cannot do one of these. The message says what failed, where, and the remedy.
    """
    device, started = device or precision.best_device(), time.monotonic()

    def tell(done: int) -> None:
        report(Progress("rehearsal", done, CHECKS, "checks", {"seconds": time.monotonic() - started}))

    name = teacher.info.architecture
    images = _images(teacher.info.input).to(device)
    with _running(teacher.network) as running:
        with _theirs(f"{name} fails on images of shape {list(teacher.info.input.shape)}", _TAKES_IMAGES, running):
            teacher = _answering(teacher, images)
        tell(1)
        with _theirs(f"{name} gives no gradient", _DIFFERENTIABLE, running):
            _check_gradient(teacher, images)
        tell(2)
        teacher = _worked_on(teacher, device, running)
        tell(3)
    with _theirs(f"{name} cannot be saved and built again", _REBUILT, []):
        _check_saved(teacher, images)
    tell(4)
    return teacher


def _images(spec: InputSpec) -> Tensor:
    """A black picture and a lively one, shape (2, channels, height, width), normalised space."""
    channels, height, width = spec.shape
    drawn = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, channels, min(4, height), min(4, width), generator=drawn)
    smooth = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    lively = (smooth + torch.rand(smooth.shape, generator=drawn)) / 2
    return spec.normalise(torch.cat([torch.zeros_like(lively), lively]))


def _answering(teacher: Teacher, images: Tensor) -> Teacher:
    """The teacher, with its layout as it turns out when it answers, and notes on its BatchNorm layers.

    Raises:
        UnsupportedModelError: it gives no finite logits, or dreams cannot be made from its BatchNorm layers.
    """
    network, info, layers = teacher.network, teacher.info, batch_norm_layers(teacher.network)
    checks.check_has_batch_norm(layers, info.architecture)
    checks.check_real(network, info.architecture)
    classifier(network, info.num_classes, channels_last=False)
    with each_use(network, layers, lambda *_: None) as uses, torch.no_grad():
        answers = network(images.cpu())
    checks.check_statistics({name: layers[name] for name in uses}, info.architecture)
    checks.check_logits(answers, len(images), info)
    notes = _on_uses({name: len(each) for name, each in uses.items()}, list(layers))
    reason = _why_not_channels_last(network, info.num_classes, images, answers)
    if reason:
        classifier(network, info.num_classes, channels_last=False)
        notes.append(f"images come to it contiguously, which may be slower than channels last: {reason}")
    info = dataclasses.replace(info, channels_last=not reason)
    return dataclasses.replace(teacher, info=info, notes=(*teacher.notes, *notes))


def _on_uses(uses: dict[str, int], layers: list[str]) -> list[str]:
    notes = []
    if several := [f"{name} ({count})" for name, count in uses.items() if count > 1]:
        notes.append(f"BatchNorm layers run several times in a pass, and count with all their uses: {listed(several)}")
    if idle := [name for name in layers if name not in uses]:
        notes.append(f"BatchNorm layers that no image reaches play no part: {listed(idle)}")
    return notes


def _logits(network: nn.Module, images: Tensor, *, seed: int = 0) -> Tensor:
    """A network's answers in float32, on the images' device; what it draws on the way comes from the seed."""
    running = precision.frozen_copy(network, torch.float32, images.device)
    with torch.random.fork_rng(), precision.strict_float32():
        torch.manual_seed(seed)
        answers: Tensor = running(images)
    return answers


def _why_not_channels_last(network: nn.Module, num_classes: int, images: Tensor, answers: Tensor) -> str:
    """Why a network cannot take images channels last; empty where it can."""
    classifier(network, num_classes, channels_last=True)
    try:
        found = _logits(network, images)
    except Exception as error:  # a network of a user's own may fail in any way
        return _first_line(error)
    if alike(found, answers.to(found.device)) or not alike(_logits(network, images, seed=1), found):
        return ""  # what it draws at random would be laid out otherwise too
    return "its answers are others then"


def _check_gradient(teacher: Teacher, images: Tensor) -> None:
    network = precision.frozen_copy(teacher.network, torch.float32, images.device)
    leaf = images.clone().requires_grad_()
    with each_use(network, dict(network.named_modules()), _loses_gradient) as uses:
        logits = network(leaf)
    if logits.requires_grad:
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits.device)
        if torch.autograd.grad((logits * weights).sum(), leaf, materialize_grads=True)[0].any():
            return
        if torch.equal(logits[0], logits[1]):
            raise UnsupportedModelError(
                f"{teacher.info.architecture} answers all images alike",
                why="nothing of an image is left at its end: weights and BatchNorm statistics do not belong together",
                now="check teacher.architecture, teacher.input and the checkpoint",
            )
    ends = [name or "its forward" for name, losses in uses.items() if any(losses)]
    raise UnsupportedModelError(
        f"{teacher.info.architecture} lets no gradient of its answers through to the image",
        why="dreams are made by following it" + (f"; it ends in {ends[0]}" if ends else ""),
        now=_DIFFERENTIABLE,
    )


def _loses_gradient(inputs: tuple[object, ...], output: object) -> bool:
    taken, given = ([found.requires_grad for _, found in tensors_in(each)] for each in (inputs, output))
    return any(taken) and bool(given) and not any(given)


def _worked_on(teacher: Teacher, device: torch.device, running: list[str]) -> Teacher:
    """The teacher, with its number format as it turns out when dreams are made and a copy is trained."""
    if precision.resolve("auto", device) == torch.float32:
        _work(teacher, device, "float32", running)
        return teacher
    try:
        _work(teacher, device, "bfloat16", running)
    except UnsupportedModelError as error:  # of an operation that bfloat16 has not
        _work(teacher, device, "float32", running)
        note = f"computes in float32, which may be slower than bfloat16: {error.what}"
        info = dataclasses.replace(teacher.info, bfloat16=False)
        return dataclasses.replace(teacher, info=info, notes=(*teacher.notes, note))
    return teacher


def _work(
    teacher: Teacher, device: torch.device, number_format: Literal["bfloat16", "float32"], running: list[str]
) -> None:
    synthesis = DeepInversionSection(num_images=2, num_held_out=0, group_size=2, iterations=1, precision=number_format)
    training, name = DistillationSection(precision=number_format), teacher.info.architecture
    with _theirs(f"{name} fails while images are synthesized from it", _DIFFERENTIABLE, running):
        dreams = synthesize(teacher, extract(teacher), synthesis, seed=0, devices=[device])
    with _theirs(f"{name} fails while a copy of it is trained", _TRAINABLE, running):
        try_step(teacher.network, _some_mask(teacher), dreams, training, device)


def _some_mask(teacher: Teacher) -> PruningMask:
    """A mask that takes every other weight of the smallest layer: others cost time and show nothing more."""
    weights = candidates_of(teacher.network, teacher.info.input.shape).weights
    name, weight = min(weights.items(), key=lambda named: named[1].numel())
    return PruningMask({name: (torch.arange(weight.numel()) % 2).bool().view(weight.shape)})


def _check_saved(teacher: Teacher, images: Tensor) -> None:
    with tempfile.TemporaryDirectory(prefix="resprout-") as folder:
        save_teacher(teacher, folder)
        again = load_teacher(folder, allow_custom_code=True)
    expected = _logits(teacher.network, images)
    if alike(_logits(again.network, images), expected) or not alike(_logits(teacher.network, images, seed=1), expected):
        return
    raise UnsupportedModelError(
        f"{teacher.info.architecture} answers otherwise after it was saved and built again",
        why="something that it computes with is neither a parameter nor a buffer",
        now="register it with register_buffer, or compute it when the network is built",
    )


@contextmanager
def _running(network: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, outermost first; also in copies that are made meanwhile."""
    names: list[str] = []

    def enter(name: str) -> object:
        def hook(*_: object) -> None:
            if not name:
                names.clear()
            names.append(name)

        return hook

    def leave(*_: object) -> None:
        if names:
            names.pop()

    handles = []
    for name, module in network.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _theirs(what: str, now: str, running: list[str]) -> Iterator[None]:
    """Tell what fails in a network, or in autograd on its way through one, as the network's own failure."""
    try:
        yield
    except ResproutError:
        raise
    except Exception as error:  # a network of a user's own may fail in any way
        if not (running or isinstance(error, RuntimeError)):
            raise
        module = f"in its module {running[-1]}" if running and running[-1] else "in its forward" if running else ""
        raise UnsupportedModelError(
            f"{what}: {type(error).__name__}: {_first_line(error)}",
            why=f"{module}{place(error, in_libraries=False)}".lstrip(", "),
            now=now,
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
