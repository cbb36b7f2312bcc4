"""What a GPU does otherwise than a CPU: recordings, other kernels, copies that are not waited for."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resprout import recipe
from resprout import statistics as bn_statistics
from resprout.batchnorm import channel_moments
from resprout.checkpoints import FolderCheckpoint
from resprout.latency import measure_latency
from resprout.precision import moved
from resprout.progress import Progress
from resprout.pruning import METHODS, prune
from resprout.recipe import (
    DeepInversionSection,
    DistillationSection,
    OptimalBrainSection,
    PaperRecoverySection,
    ReconstructionSection,
)
from resprout.recording import WARM_UP, Recorded
from resprout.recovery import recover, repair
from resprout.rehearsal import rehearse
from resprout.rounds import prune_on_dreams
from resprout.synthesis import synthesize
from resprout.types import DreamSet, InputSpec, ModelInfo, Student, Teacher
from tests.resprout import any_networks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SYNTHESIS = DeepInversionSection(num_images=16, num_held_out=8, group_size=8, iterations=8, precision="float32")


def trained(recorded: bool, sizes: list[int], *, waits: bool = False) -> dict[str, Tensor]:
    """A network with BatchNorm after a step of Adam for each batch size; one that waits for the GPU in its midst."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)
    network.to(GPU)
    optimizer = torch.optim.AdamW(network.parameters(), lr=torch.tensor(0.01, device=GPU), fused=True, capturable=True)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        assert not waits or float(loss.detach()) > 0
        loss.backward()
        optimizer.step()

    run = Recorded(step, GPU) if recorded else step
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        for size in sizes:
            optimizer.param_groups[0]["lr"].fill_(0.1 / size)
            images = torch.randn(size, 3, 8, 8, generator=generator)
            run(images.to(GPU), torch.randint(0, 4, (size,), generator=generator).to(GPU))
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}


def test_a_replayed_step_does_what_the_step_does() -> None:
    sizes = [5, 5, 4, 5, 5, 4, 4, 5, 4, 4, 5, 4]
    assert max(sizes.count(4), sizes.count(5)) > WARM_UP + 2
    plain, replayed = trained(recorded=False, sizes=sizes), trained(recorded=True, sizes=sizes)
    assert all(torch.equal(tensor, replayed[name]) for name, tensor in plain.items())


def test_a_step_that_cannot_be_recorded_goes_on_being_run() -> None:
    sizes = [5] * (WARM_UP + 4)
    plain, waiting = trained(recorded=False, sizes=sizes), trained(recorded=True, sizes=sizes, waits=True)
    assert all(torch.equal(tensor, waiting[name]) for name, tensor in plain.items())


def test_a_copy_that_is_not_waited_for_brings_the_values() -> None:
    given = [torch.randint(0, 1000, (64, 32), generator=torch.Generator().manual_seed(seed)) for seed in range(200)]
    arrived = [moved(tensor, GPU) for tensor in given]
    assert all(torch.equal(there.cpu(), tensor) for tensor, there in zip(given, arrived, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_and_their_gradient_match_float64(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(32, 24, 9, 7, generator=generator) * 3 + 1).to(dtype)
    inputs = values.to(GPU).contiguous(memory_format=torch.channels_last).requires_grad_()
    moments = channel_moments(inputs)
    weights = torch.randn(2, 24, generator=generator)
    ((moments.mean.cpu() * weights[0]).sum() + (moments.variance.cpu() * weights[1]).sum()).backward()
    truth = values.double().requires_grad_()
    mean, variance = truth.mean((0, 2, 3)), truth.var((0, 2, 3), unbiased=False)
    ((mean * weights[0]).sum() + (variance * weights[1]).sum()).backward()
    torch.testing.assert_close(moments.mean.double().cpu(), mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.variance.double().cpu(), variance, rtol=1e-4, atol=1e-4)
    assert truth.grad is not None
    assert inputs.grad is not None
    rough = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(inputs.grad.double().cpu(), truth.grad, rtol=rough, atol=rough * 1e-3)


def test_dreams_repeat_bit_for_bit_and_are_near_those_of_a_cpu(tiny_teacher: Teacher) -> None:
    found = bn_statistics.extract(tiny_teacher)
    section = SYNTHESIS.model_copy(update={"iterations": 3})
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        here = synthesize(tiny_teacher, found, section, seed=0, devices=[CPU])
    there = synthesize(tiny_teacher, found, section, seed=0, devices=[GPU])
    # Adam's first steps go by a gradient's sign: where it is about 0, rounding decides
    assert (here.images - there.images).abs().float().quantile(0.95) < 0.02
    longer = [synthesize(tiny_teacher, found, SYNTHESIS, seed=0, devices=[GPU]) for _ in range(2)]
    assert torch.equal(longer[0].images, longer[1].images)
    halves = SYNTHESIS.model_copy(update={"precision": "bfloat16"})
    again = [synthesize(tiny_teacher, found, halves, seed=0, devices=[GPU]).images for _ in range(2)]
    assert torch.equal(*again)


def test_two_processes_make_the_dreams_of_one(tiny_teacher: Teacher) -> None:
    found = bn_statistics.extract(tiny_teacher)
    alone, together = (synthesize(tiny_teacher, found, SYNTHESIS, seed=0, devices=each) for each in ([GPU], [GPU, GPU]))
    assert torch.equal(alone.images, together.images)


SECTIONS = [
    DistillationSection(epochs=4, batch_size=20, start="repaired"),  # batches of two sizes
    DistillationSection(epochs=4, start="reconstructed", target_weight=0.5, cutmix=1.0),
    DistillationSection(epochs=4, start="repaired", optimizer="sgd", learning_rate=1e-3, precision="float32"),
    PaperRecoverySection(),
    ReconstructionSection(),
]


@pytest.mark.parametrize("section", SECTIONS, ids=["uneven", "solved", "sgd", "paper", "reconstruction"])
def test_recovery_repeats_bit_for_bit_and_keeps_the_mask(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, section: Any
) -> None:
    networks = (tiny_teacher, tiny_student, tiny_dreams, section)
    first, second = (recover(*networks, seed=0, device=GPU).recovered for _ in range(2))
    tensors = second.network.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in first.network.state_dict().items())
    parameters = dict(first.network.named_parameters())
    assert not any(parameters[name][~kept].any() for name, kept in tiny_student.mask.keep.items())


def test_recovery_learns_as_much_as_on_a_cpu(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    section = DistillationSection(epochs=8, start="repaired")
    here, there = (recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0, device=d) for d in (CPU, GPU))
    assert there.metrics["train_kl"] < 1.3 * here.metrics["train_kl"]
    assert there.metrics["held_out_kl"] < 1.3 * here.metrics["held_out_kl"]


def test_a_stopped_recovery_goes_on_to_the_same_bits(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, tmp_path: Any
) -> None:
    section = DistillationSection(epochs=5, start="repaired")
    networks = (tiny_teacher, tiny_student, tiny_dreams, section)
    whole = recover(*networks, seed=0, device=GPU).recovered.network.state_dict()

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise InterruptedError

    checkpoint = FolderCheckpoint(tmp_path)
    with pytest.raises(InterruptedError):
        recover(*networks, seed=0, device=GPU, checkpoint=checkpoint, report=stop)
    resumed = recover(*networks, seed=0, device=GPU, checkpoint=checkpoint).recovered.network.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_repairing_and_solving_agree_with_a_cpu(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    here, there = (repair(tiny_student, tiny_dreams, device).network.state_dict() for device in (CPU, GPU))
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, rtol=2e-2, atol=2e-3)
    here, there = (
        recover(tiny_teacher, tiny_student, tiny_dreams, ReconstructionSection(), seed=0, device=device).metrics
        for device in (CPU, GPU)
    )
    assert there["relative_error"] == pytest.approx(here["relative_error"], rel=0.02)


@pytest.mark.parametrize("method", [*METHODS, "structured"])
def test_pruning_takes_the_weights_that_it_takes_on_a_cpu(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, method: str
) -> None:
    own: dict[str, Any] = {"sparsity": 0.6}
    if method == "structured":
        own = {"macs_ratio": 0.5, "importance": "taylor", "round_to": 1}
    elif method == "semi_structured":
        own = {}
    elif method == "teacher_guided":
        own |= {"training_steps": 3}
    section = recipe.section("pruning", {"method": method, **own})
    here, there = (prune(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=device) for device in (CPU, GPU))
    if method == "structured":
        assert here.channels is not None
        assert there.channels is not None
        kept = [(here.channels.outputs[name] == there.channels.outputs[name]) for name in here.channels.outputs]
    else:
        kept = [here.mask.keep[name] == there.mask.keep[name] for name in here.mask.keep]
    same = torch.cat([each.flatten() for each in kept]).float().mean()
    assert same > 0.98


def test_rounds_run_and_are_as_sparse_as_asked(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    section = recipe.section("pruning", {"method": "lamp", "sparsity": 0.8, "rounds": 2, "round_epochs": 2})
    student = prune_on_dreams(tiny_teacher, tiny_dreams, section, DistillationSection(), seed=0, device=GPU).student
    assert student.mask.sparsity == pytest.approx(0.8, abs=1e-3)


def test_a_network_takes_as_long_as_its_copy(tiny_teacher: Teacher) -> None:
    twin = copy.deepcopy(tiny_teacher.network)
    measured = measure_latency(twin, tiny_teacher.network, (3, 16, 16), batch_size=4)
    assert measured.device == "cuda"
    assert 0.5 < measured.ratio < 2


def test_a_step_that_draws_outside_the_gpu_is_run_each_time() -> None:
    total = torch.zeros((), device=GPU)

    def step(value: Tensor) -> None:
        if random.random() < 0.5:
            total.add_(value)

    random.seed(0)
    recorded = Recorded(step, GPU)
    for _ in range(40):
        recorded(torch.ones((), device=GPU))
    random.seed(0)
    assert int(total) == sum(random.random() < 0.5 for _ in range(40))


@pytest.mark.parametrize(
    "kind",
    ["Viewing", "Cube", "Auxiliary", "Resolutions", "Idle", "Skipping", "Shared", "Changing", "Gated", "Wrapped"],
)
def test_any_kind_of_network_goes_through_all_stages(kind: str) -> None:
    torch.manual_seed(0)
    network = any_networks.trained(getattr(any_networks, kind)(4))
    spec = InputSpec((3, 16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    info = ModelInfo(f"tests.resprout.any_networks:{kind}", 4, spec, tuple("abcd"), custom_code=True)
    teacher = rehearse(Teacher(info, network), device=GPU)
    dreams = synthesize(teacher, bn_statistics.extract(teacher), SYNTHESIS, seed=0, devices=[GPU])
    student = prune(teacher, OptimalBrainSection(sparsity=0.5), seed=0, dreams=dreams, device=GPU)
    training = DistillationSection(epochs=6, batch_size=4, start="repaired", keep="last")
    result = recover(teacher, student, dreams, training, seed=0, device=GPU)
    assert torch.isfinite(result.recovered.network(torch.zeros(1, *spec.shape))).all()
    assert len(result.curves["train_kl"]) == 6
