"""Recovery: a pruned student's accuracy brought back on dreams."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from resprout import __version__, precision
from resprout.checkpoints import Checkpoint, fingerprint
from resprout.classifier import laid_out
from resprout.devices import computed_on
from resprout.errors import ArtifactError, DivergedError, UnsupportedModelError
from resprout.progress import Progress, Report, silent
from resprout.recipe import DistillationSection, PaperRecoverySection, ReconstructionSection
from resprout.recovery.calibration import reestimate
from resprout.recovery.distillation import Distilled, distil, try_step
from resprout.recovery.judging import is_finite, nearest
from resprout.recovery.reconstruction import reconstruct, solvable
from resprout.recovery.start import MADE_UP_AGREEMENT, mended, settle
from resprout.types import DreamSet, Student, Teacher

# The recipe released with arXiv 2511.20702, every field of it, so that no default of ours changes it
PAPER = DistillationSection(
    epochs=15,
    batch_size=32,
    optimizer="sgd",
    learning_rate=1e-3,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.0,
    temperature=3.0,
    distillation_weight=1.0,
    feature_weight=0.0,
    target_weight=0.0,
    start="pruned",
    keep_batchnorm_frozen=True,
    jitter=0,
    flip=False,
    mixup=0.0,
    zoom=1.0,
    rotation=0.0,
    cutmix=0.0,
    keep="last",
    precision="float32",
)
METHODS = ("distillation", "reconstruction", "paper")


@dataclass(frozen=True)
class Recovery:
    """What recovery gives.

    Args:
        recovered: the student after distillation or reconstruction.
        repaired: the student with its BatchNorm statistics re-estimated on dreams and nothing trained.
        section: how, with nothing left to choose: what `start: auto` chose, and what followed from it.
        curves: name -> float32, shape (epochs,); empty where nothing is trained.
        metrics: the figures of the student that was kept, with its epoch as `kept_epoch`, 0 where it is none; or the
            layers' mean relative error.
        notes: what people should know of what was kept.
    """

    recovered: Student
    repaired: Student
    section: DistillationSection | ReconstructionSection | PaperRecoverySection
    curves: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    notes: tuple[str, ...] = ()


def recover(
    teacher: Teacher,
    student: Student,
    dreams: DreamSet,
    section: DistillationSection | ReconstructionSection | PaperRecoverySection,
    *,
    seed: int,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> Recovery:
    """Bring the pruned student's accuracy back on dreams.

    Where something is held out to judge by, and recovery.keep is best, the result is never worse there than the student
    that came in, nor than that with its BatchNorm statistics re-estimated: it is one of them where nothing is better.

    Args:
        teacher, student: are not changed; the student's mask holds bit for bit afterwards.
        dreams: in the teacher's normalised input space.
        section: how.
        seed: with the section and the inputs, determines every bit of the result on one kind of machine.
        report: is told how far the work is.
        checkpoint: an unfinished training goes on from here.
        device: default: the first GPU, or the CPU.

    Raises:
        ArtifactError: the dreams do not fit the teacher's input, or are too few for one batch statistic.
        UnsupportedModelError: reconstruction, and no pruned layer that it can solve.
        DivergedError: numbers grew until they were none before anything could be kept.
    """
    _check(teacher, dreams)
    device = device or precision.best_device()
    repaired = repair(student, dreams, device)
    if isinstance(section, ReconstructionSection):
        solved, relative_error = _solved(teacher.network, student, dreams, section, device, report, checkpoint)
        candidates = {"solved": solved, PRUNED: student, REPAIRED: repaired}
        kept = nearest(teacher, candidates, dreams, device)
        metrics, notes = {"relative_error": relative_error}, () if kept == "solved" else (_none_better(kept),)
        return Recovery(candidates[kept], repaired, section, {}, metrics, notes)
    plain = PAPER if isinstance(section, PaperRecoverySection) else section
    if plain.precision == "auto" and not teacher.info.bfloat16:
        plain = plain.model_copy(update={"precision": "float32"})
    settled, first = _begun(plain, teacher, student, repaired, dreams, device, report, checkpoint)
    others = {name: each.network for name, each in {PRUNED: student, REPAIRED: repaired}.items() if each is not first}
    dtype = str(precision.resolve(settled.precision, device))
    networks = (teacher.info, teacher.network, first.network, others, student.mask, student.channels)
    images = (dreams.images, dreams.targets, dreams.num_held_out, dreams.num_classes)
    key = f"recovery-{fingerprint(networks, images, settled, seed, dtype, computed_on([device]), __version__)}"
    made = distil(
        teacher.network,
        first.network,
        student.mask,
        dreams,
        settled,
        channels=student.channels,
        seed=seed,
        device=device,
        watch=lambda epoch, figures: report(
            Progress("recovery", epoch, plain.epochs, "epochs", figures, resumed=not figures)
        ),
        others=others,
        checkpoint=checkpoint,
        key=key,
    )
    epoch = made.kept.removeprefix("epoch ")
    metrics = {**made.figures, "kept_epoch": float(epoch) if epoch.isdigit() else 0.0}
    used = section if isinstance(section, PaperRecoverySection) else settled
    recovered = replace(student, network=made.network.requires_grad_(False))
    return Recovery(recovered, repaired, used, made.curves, metrics, _notes(made, settled.epochs, used))


PRUNED, REPAIRED = "the student as it was pruned", "the one with BatchNorm repaired"


def _notes(made: Distilled, epochs: int, section: DistillationSection | PaperRecoverySection) -> tuple[str, ...]:
    if made.diverged is not None:
        smaller = (
            f"its step size is {PAPER.learning_rate:g}; set recovery.method to distillation, where it can be lower"
        )
        if isinstance(section, DistillationSection):
            smaller = f"lower recovery.learning_rate, which is {section.learning_rate:g}"
        return (
            f"recovery diverged in epoch {made.diverged} of {epochs}: losses are no numbers any more; "
            f"{made.kept} is kept; {smaller}",
        )
    return () if made.kept.startswith("epoch") else (_none_better(made.kept),)


def _none_better(kept: str) -> str:
    return f"recovery made nothing better of held-out dreams than {kept}, which is kept"


def _begun(
    section: DistillationSection,
    teacher: Teacher,
    student: Student,
    repaired: Student,
    dreams: DreamSet,
    device: torch.device,
    report: Report,
    checkpoint: Checkpoint | None,
) -> tuple[DistillationSection, Student]:
    """The section with nothing left to choose, and the student that distillation starts from."""
    settled = settle(section, teacher, student, repaired, dreams, device)
    if settled.start != "reconstructed":
        return settled, repaired if settled.start == "repaired" else student
    try:
        solved, _ = _solved(teacher.network, student, dreams, ReconstructionSection(), device, report, checkpoint)
    except DivergedError:
        if section.start != "auto":
            raise
    else:
        if section.start != "auto" or mended(teacher, solved, dreams, device):
            return settled, solved
    anew = section.model_copy(update={"start": "repaired"})
    return settle(anew, teacher, student, repaired, dreams, device), repaired


def mendable(
    teacher: Teacher,
    student: Student,
    dreams: DreamSet,
    *,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> bool:
    """Whether a pruned copy of the teacher needs only a small step once its layers are solved, as auto would choose.

    Args:
        student: with the teacher's weights; is not changed.
        dreams: what its layers are solved on, and what it is then asked.
    """
    device = device or precision.best_device()
    auto, repaired = DistillationSection(start="auto"), repair(student, dreams, device)
    settled, _ = _begun(auto, teacher, student, repaired, dreams, device, report, checkpoint)
    return settled.start == "reconstructed"


def made_up(
    teacher: Teacher,
    before: Student,
    pruned: Student,
    dreams: DreamSet,
    *,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> Student:
    """A student that was trained before it lost more weights, with each layer solved to give what it gave until then.

    What Optimal Brain Surgeon does to the weights that stay. The teacher's outputs would pull them back to where they
    were before the training.

    Args:
        before: the student as it was before it lost them.
        pruned: the same without them; is not changed.
        dreams: what its layers are solved on, and what it is then asked.

    Returns:
        `pruned` as it came where no layer can be solved, or where its answers are not the teacher's even so (`mended`):
        it is trained anew then, for which solved layers are no better start.
    """
    device = device or precision.best_device()
    if not solvable(pruned.network, pruned.mask):
        return pruned
    section = ReconstructionSection()
    try:
        solved, _ = _solved(before.network, pruned, dreams, section, device, report, checkpoint)
    except DivergedError:
        return pruned
    return solved if mended(teacher, solved, dreams, device, enough=MADE_UP_AGREEMENT) else pruned


def _solved(
    reference: nn.Module,
    student: Student,
    dreams: DreamSet,
    section: ReconstructionSection,
    device: torch.device,
    report: Report,
    checkpoint: Checkpoint | None,
) -> tuple[Student, float]:
    """The student with its layers solved for what `reference` gives, and their mean relative error."""
    if not solvable(student.network, student.mask):
        raise UnsupportedModelError(
            "no pruned layer is a plain nn.Conv2d or nn.Linear, so none can be solved",
            now="recover by distillation with start: repaired",
        )
    images, made_in = dreams.training[0], (computed_on([device]), __version__)
    networks = (reference, student.info, student.network, student.mask, student.channels)
    with precision.repeatable(allow_tf32=False):
        network, errors = reconstruct(
            reference,
            student.network,
            student.mask,
            images.float(),
            channels=student.channels,
            ridge=section.ridge,
            device=device,
            watch=lambda done, total, figures: report(Progress("recovery", done, total, "layers", figures)),
            checkpoint=checkpoint,
            key=f"solved-{fingerprint(networks, images, section, made_in)}",
        )
    return replace(student, network=network.requires_grad_(False)), sum(errors.values()) / len(errors)


def repair(student: Student, dreams: DreamSet, device: torch.device | None = None) -> Student:
    """A copy of the student with its BatchNorm statistics re-estimated on the training dreams."""
    device = device or precision.best_device()
    network = laid_out(copy.deepcopy(student.network).to(device))
    with precision.repeatable(allow_tf32=False):
        reestimate(network, dreams.training[0].to(device=device, dtype=torch.float32))
    if not is_finite(network):
        raise DivergedError(
            "BatchNorm statistics re-estimated on dreams are no numbers",
            why="activations of the pruned student grow beyond float32",
            now="lower pruning.sparsity, or prune by another method",
        )
    return replace(student, network=network.cpu().eval().requires_grad_(False))


def _check(teacher: Teacher, dreams: DreamSet) -> None:
    expected, found = tuple(teacher.info.input.shape), tuple(dreams.images.shape[1:])
    if expected != found:
        raise ArtifactError(
            f"dreams are {list(found)}, but the teacher takes {list(expected)}",
            now="synthesize dreams from this teacher",
        )
    if dreams.num_training < 2:
        raise ArtifactError(f"{dreams.num_training} dreams to train on", now="raise synthesis.num_images")


__all__ = ["METHODS", "PAPER", "Recovery", "made_up", "mendable", "recover", "repair", "try_step"]
