"""Distilling the teacher into its pruned student on dreams."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor, nn
from torch.nn import functional

from resprout import precision
from resprout.batchnorm import batch_norm_layers
from resprout.checkpoints import Checkpoint, check_like
from resprout.classifier import laid_out
from resprout.errors import DivergedError
from resprout.heldout import with_blends
from resprout.masking import holder
from resprout.recipe import DistillationSection
from resprout.recording import Recorded
from resprout.recovery.augmentation import augment
from resprout.recovery.calibration import reestimate
from resprout.recovery.features import block_names, capture_features, feature_distance, kept_features, matched
from resprout.recovery.judging import answers, compared, is_finite, kl_divergence
from resprout.seeding import generator as seeded
from resprout.stem import step_groups
from resprout.types import ChannelPlan, DreamSet, PruningMask

EpochWatch = Callable[[int, dict[str, float]], None]


@dataclass
class _State:
    """Everything that a resumed run needs to end with the same bits."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    best: dict[str, Tensor]
    best_kl: float = math.inf
    kept: str = "the start"
    figures: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)

    def take(self, network: nn.Module, called: str, figures: Mapping[str, float]) -> None:
        """Keep a student until a better one comes."""
        self.best, self.kept, self.figures = _snapshot(network), called, dict(figures)
        self.best_kl = figures.get("held_out_kl", math.inf)


@dataclass(frozen=True)
class Distilled:
    """What distillation gives.

    Args:
        network: the student in evaluation mode on the CPU.
        curves: one per figure, float32, shape (epochs,); of epochs that ended with numbers.
        kept: which student it is: `the start`, `epoch 3`, or one of the others by its name.
        figures: of that one.
        diverged: the epoch that ended without numbers, and was the last one; None: none did.
    """

    network: nn.Module
    curves: dict[str, Tensor]
    kept: str
    figures: dict[str, float]
    diverged: int | None


def distil(
    teacher: nn.Module,
    student: nn.Module,
    mask: PruningMask,
    dreams: DreamSet,
    section: DistillationSection,
    *,
    channels: ChannelPlan | None = None,
    seed: int,
    device: torch.device,
    watch: EpochWatch,
    others: Mapping[str, nn.Module] | None = None,
    checkpoint: Checkpoint | None = None,
    key: str = "distillation",
) -> Distilled:
    """Train a copy of the student to answer as the teacher does; pruned weights stay exactly 0.

    An epoch that ends with a loss, a weight or an answer that is no number is the last one, and none of it is kept.

    Args:
        teacher, student: are not changed.
        dreams: its training part is trained on, its held-out part, with blends of it, chooses the epoch to
            keep.
        channels: which of the teacher's channels the student has; its features are matched on those. None: all.
        section: settled (see `recovery.start`): it names a step size.
        watch: is told the epoch that it starts from, without figures, then each with its own.
        others: students that are kept where section.keep is best and they are better than the start and every epoch.
        checkpoint, key: where an unfinished training is kept and found.

    Raises:
        DivergedError: the teacher or the student that it starts from answers without numbers.
    """
    dtype = precision.resolve(section.precision, device)
    frozen_teacher = precision.frozen_copy(teacher, dtype, device)
    network = laid_out(copy.deepcopy(student).to(device)).requires_grad_(True)
    state = _State(network, _optimizer(network, dreams, section), seeded(seed, "recovery"), _snapshot(network))
    if checkpoint is not None:
        at_most = 4 * sum(tensor.nbytes for tensor in state.best.values())  # network, best, two moments
        checkpoint.load(key, lambda found: _put_back(state, section.epochs, *found), at_most=at_most)
    watch(state.epoch, {})
    images, targets = dreams.training[0].to(device=device, dtype=torch.float32), _shares(dreams).to(device)
    held_out = with_blends(dreams.held_out[0]).to(device)
    wanted = answers(frozen_teacher, held_out, dtype) if len(held_out) else None

    def judged(candidate: nn.Module) -> dict[str, float]:
        return {} if wanted is None else compared(answers(candidate.eval(), held_out, dtype), wanted)

    if state.epoch == 0:  # where the start is already best, training may only lose
        state.take(network, "the start", judged(network))
        _refuse_without_numbers(network, state.figures, dtype)
        for name, other in (others or {}).items() if section.keep == "best" and wanted is not None else ():
            candidate = laid_out(copy.deepcopy(other).to(device))
            if (figures := judged(candidate))["held_out_kl"] < state.best_kl:
                state.take(candidate, name, figures)
    blocks = block_names(state.network) if section.feature_weight else []
    kept = _kept(teacher, channels, blocks, images[:2])
    looked_at = {"train_kl": True, "train_features": bool(blocks), "train_target": section.target_weight > 0}
    every, totals, hold = math.ceil(section.epochs / 20), torch.zeros(3, device=device), holder(state.network, mask)
    diverged = None
    with ExitStack() as contexts:
        contexts.enter_context(precision.repeatable())
        contexts.enter_context(precision.sound_gradients(state.network))
        step = contexts.enter_context(_stepping(state, frozen_teacher, blocks, kept, hold, totals, section, dtype))
        for epoch in range(state.epoch, section.epochs):
            means = _epoch(state, (images, targets), step, totals, section, epoch)
            figures = {name: mean for name, mean in means.items() if looked_at[name]}
            figures |= judged(state.network)
            if not (all(map(math.isfinite, figures.values())) and is_finite(state.network)):
                diverged = epoch + 1
                break
            if section.keep == "last" or wanted is None or figures["held_out_kl"] <= state.best_kl:
                state.take(state.network, f"epoch {epoch + 1}", figures)
            for name, value in figures.items():
                state.curves.setdefault(name, []).append(value)
            state.epoch = epoch + 1
            if checkpoint is not None and (state.epoch % every == 0 or state.epoch == section.epochs):
                _keep(state, checkpoint, key)
            watch(state.epoch, figures)
    state.network.load_state_dict(state.best)
    curves = {name: torch.tensor(values) for name, values in state.curves.items()}
    return Distilled(state.network.cpu().eval(), curves, state.kept, state.figures, diverged)


def try_step(
    teacher: nn.Module, mask: PruningMask, dreams: DreamSet, section: DistillationSection, device: torch.device
) -> None:
    """Estimate BatchNorm anew in a copy of the teacher, and train it for one step as `distil` does; keep nothing of it.

    It takes a copy and its gradients, and none of what a whole training remembers.

    Args:
        mask: whose weights go; it need not cover all layers.
        section: its precision and weights count, its optimiser does not.
    """
    dtype = precision.resolve(section.precision, device)
    frozen_teacher = precision.frozen_copy(teacher, dtype, device)
    network = laid_out(copy.deepcopy(teacher).to(device))
    images, targets = dreams.training[0].to(device=device, dtype=torch.float32), _shares(dreams).to(device)
    with precision.repeatable(), precision.sound_gradients(network):
        reestimate(network, images)
        plain = torch.optim.SGD(network.requires_grad_(True).parameters(), 1e-4)
        state, totals = _State(network, plain, seeded(0, "recovery"), {}), torch.zeros(3, device=device)
        hold = holder(network, mask)
        with _stepping(state, frozen_teacher, block_names(network), None, hold, totals, section, dtype) as step:
            _training_mode(network, bool(section.keep_batchnorm_frozen))
            step(images, targets)


def _refuse_without_numbers(network: nn.Module, figures: Mapping[str, float], dtype: torch.dtype) -> None:
    if all(map(math.isfinite, figures.values())) and is_finite(network):
        return
    named = str(dtype).removeprefix("torch.")
    raise DivergedError(
        f"recovery cannot start: what the teacher or the pruned student answers to dreams is no number in {named}",
        why="there is nothing to come nearer to",
        now="set recovery.precision to float32" if dtype != torch.float32 else "set recovery.start to pruned",
    )


def _shares(dreams: DreamSet) -> Tensor:
    """How much of each class a training image shows before it is blended: float32, shape (images, classes)."""
    return functional.one_hot(dreams.training[1], dreams.num_classes).float()


def _optimizer(network: nn.Module, dreams: DreamSet, section: DistillationSection) -> torch.optim.Optimizer:
    """The optimiser; its groups keep the peak step size as `initial_lr`, as torch's own schedulers do."""
    peak = section.learning_rate
    if peak is None:
        raise ValueError("the section is not settled: it names no learning_rate")
    adaptive, device = section.optimizer == "adamw", next(network.parameters()).device
    groups = step_groups(network, dreams.training[0], peak=peak, weight_decay=section.weight_decay, adaptive=adaptive)
    on_gpu = device.type == "cuda"
    if on_gpu:  # a recorded step reads its size from there
        groups = [group | {"lr": torch.tensor(group["lr"], device=device)} for group in groups]
    if adaptive:
        return torch.optim.AdamW(groups, fused=True, capturable=on_gpu)
    return torch.optim.SGD(groups, momentum=0.9, fused=on_gpu)


def _epoch(
    state: _State,
    training: tuple[Tensor, Tensor],
    step: Recorded,
    totals: Tensor,
    section: DistillationSection,
    epoch: int,
) -> dict[str, float]:
    _training_mode(state.network, bool(section.keep_batchnorm_frozen))
    steps = max(1, len(training[0]) // section.batch_size)
    totals.zero_()
    for number, batch in enumerate(_shuffled(*training, steps, state.generator)):
        _set_learning_rate(state.optimizer, section, (epoch * steps + number) / (section.epochs * steps))
        views, targets = augment(
            *batch,
            jitter=section.jitter,
            flip=section.flip,
            mixup=section.mixup,
            zoom=section.zoom,
            rotation=section.rotation,
            cutmix=section.cutmix,
            generator=state.generator,
        )
        step(views, targets)
    return dict(zip(("train_kl", "train_features", "train_target"), (totals / steps).tolist(), strict=True))


@contextmanager
def _stepping(
    state: _State,
    teacher: nn.Module,
    blocks: Sequence[str],
    kept: Mapping[str, Tensor] | None,
    hold: Callable[[], None],
    totals: Tensor,
    section: DistillationSection,
    dtype: torch.dtype,
) -> Iterator[Recorded]:
    """A step of the optimiser: of views, shape (batch, channels, height, width), and how much of each class they show.

    Args:
        teacher: frozen, computes in `dtype`.
        blocks: where features are matched.
        kept: on which of the teacher's channels; None: on all.
        hold: keeps pruned weights at 0.
        totals: float32, shape (3,): each step adds its KL, its features' distance and its cross-entropy.
    """
    with ExitStack() as hooks:
        student_features = hooks.enter_context(capture_features(state.network, blocks))
        teacher_features = hooks.enter_context(capture_features(teacher, blocks))

        def step(views: Tensor, targets: Tensor) -> None:
            with torch.no_grad():
                answers = teacher(views.to(dtype)).float()
            with torch.autocast(views.device.type, dtype, enabled=dtype != torch.float32):
                logits = state.network(views)
            kl = kl_divergence(logits.float(), answers, section.temperature)
            compared = matched(student_features, teacher_features, kept)
            features = feature_distance(*compared) if compared[0] else torch.zeros_like(kl)
            target = (
                functional.cross_entropy(logits.float(), targets) if section.target_weight else torch.zeros_like(kl)
            )
            loss = section.distillation_weight * kl + section.feature_weight * features + section.target_weight * target
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
            hold()
            totals.add_(torch.stack([kl.detach(), features.detach(), target.detach()]))

        yield Recorded(step, totals.device)


def _kept(
    teacher: nn.Module, channels: ChannelPlan | None, blocks: Sequence[str], images: Tensor
) -> Mapping[str, Tensor] | None:
    """On which of the teacher's channels features are matched; None for all of them."""
    if channels is None:
        return None
    return kept_features(copy.deepcopy(teacher).to(images.device), channels, blocks, images)


def _training_mode(network: nn.Module, keep_batchnorm_frozen: bool) -> None:
    network.train()
    if keep_batchnorm_frozen:
        for layer in batch_norm_layers(network).values():
            layer.eval()


def _shuffled(
    images: Tensor, targets: Tensor, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and their targets in random order, in `steps` batches as even as can be."""
    order = precision.moved(torch.randperm(len(images), generator=generator), images.device)
    for chosen in order.tensor_split(steps):
        yield images[chosen], targets[chosen]


def _set_learning_rate(optimizer: torch.optim.Optimizer, section: DistillationSection, done: float) -> None:
    if done < section.warmup:
        factor = (done + 1e-3) / (section.warmup + 1e-3)
    elif section.schedule == "constant":
        factor = 1.0
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (done - section.warmup) / (1 - section.warmup)))
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(group["initial_lr"] * factor)
        else:
            group["lr"] = group["initial_lr"] * factor


def _snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _keep(state: _State, checkpoint: Checkpoint, key: str) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    tensors["generator"] = state.generator.get_state()
    kept = {"best_kl": state.best_kl, "kept": state.kept, "figures": state.figures}
    about = {"epoch": state.epoch, "curves": state.curves, **kept}
    checkpoint.save(key, tensors, about)


class _About(BaseModel):
    """What is kept of a training beside tensors."""

    model_config = ConfigDict(strict=True, extra="forbid")

    epoch: int = Field(ge=1)
    curves: dict[str, list[FiniteFloat]]
    best_kl: float = Field(ge=-1)  # infinite where nothing is held out, and never below 0 but for rounding
    kept: str
    figures: dict[str, FiniteFloat]


def _put_back(state: _State, epochs: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Bring a training to where it was.

    Raises:
        ValueError: this is no state of it. Nothing is changed then.
    """
    facts = _About.model_validate(about)
    if facts.epoch > epochs or any(len(curve) != facts.epoch for curve in facts.curves.values()):
        raise ValueError(f"it is no state after {facts.epoch} of {epochs} epochs")
    moments = _moments(state.optimizer, _under("optimizer.", tensors))
    network = state.network.state_dict()
    like = {f"{part}{name}": tensor for part in ("network.", "best.") for name, tensor in network.items()}
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.")}
    check_like(others, {**like, "generator": state.generator.get_state()})
    state.network.load_state_dict(_under("network.", tensors))
    state.best = _under("best.", tensors)
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    state.generator.set_state(tensors["generator"])
    state.epoch, state.curves = facts.epoch, facts.curves
    state.best_kl, state.kept, state.figures = facts.best_kl, facts.kept, facts.figures


def _moments(optimizer: torch.optim.Optimizer, named: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """What an optimiser remembers of each parameter that had a gradient, by the parameter's number.

    Args:
        named: as `NUMBER.NAME`.

    Raises:
        ValueError: that is not what it remembers.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    remembered = ("step", "exp_avg", "exp_avg_sq") if isinstance(optimizer, torch.optim.AdamW) else ("momentum_buffer",)
    numbers = {int(name.partition(".")[0]) for name in named}
    if not numbers <= set(range(len(parameters))):
        raise ValueError(f"it remembers more than {len(parameters)} parameters")
    moments: dict[int, dict[str, Tensor]] = {}
    for number in sorted(numbers):
        like = {name: torch.zeros(()) if name == "step" else parameters[number] for name in remembered}
        found = _under(f"{number}.", named)
        check_like(found, like)
        # The fused kernels walk memory: a moment must lie in memory as its parameter does (channels_last)
        moments[number] = {name: torch.empty_like(like[name]).copy_(tensor) for name, tensor in found.items()}
    return moments


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
