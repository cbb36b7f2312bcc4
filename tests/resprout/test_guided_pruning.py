"""Criteria that look at images and gradients: their scores against slow references, and what they may never do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from resprout import recipe
from resprout.errors import ArtifactError, RecipeError
from resprout.progress import Progress, silent
from resprout.pruning import prune
from resprout.pruning.gradients import Examples, damped, squared_gradients
from resprout.pruning.guidance import EPS, briefly_trained, ca_kld, cross_entropy, examples_of, guided_loss
from resprout.pruning.subject import Subject, comparable
from resprout.pruning.teacher_guided import guided_scores
from resprout.pruning.threshold import keep_best
from resprout.seeding import generator
from resprout.types import DreamSet, PruningMask, Student, Teacher

GUIDED = ["taylor", "fisher", "teacher_guided", "optimal_brain"]
NETWORK = ["synflow", *GUIDED]
CPU = torch.device("cpu")
LOGITS = st.integers(0, 2**31).map(lambda seed: torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(seed)))


def section(method: str, sparsity: float = 0.8, **fields: Any) -> Any:
    if method == "teacher_guided":
        fields = {"training_steps": 3, **fields}
    return recipe.section("pruning", {"method": method, "sparsity": sparsity, **fields})


@pytest.fixture
def dreams(tiny_images: tuple[Tensor, Tensor]) -> DreamSet:
    images, labels = tiny_images
    return DreamSet(images[:40].half(), labels[:40], num_held_out=8, num_classes=4)


def flat(parts: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def tiny(seed: int = 0) -> nn.Module:
    """A network in float64 with few enough weights for finite differences."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    )
    network[1].running_mean.normal_(std=0.3)
    network[1].running_var.uniform_(0.5, 2)
    return network.double().eval()


def tiny_examples(count: int = 7) -> Examples:
    drawn = torch.Generator().manual_seed(1)
    images = torch.randn(count, 2, 4, 4, generator=drawn, dtype=torch.float64)
    answers = torch.randn(count, 3, generator=drawn, dtype=torch.float64)
    return Examples(images, answers, torch.arange(count) % 3)


def slow_squares(
    network: nn.Module, examples: Examples, loss: Callable[..., Tensor], batch_size: int
) -> dict[str, Tensor]:
    """Central differences, one weight and one batch at a time; squared, and averaged over the images."""
    found = {}
    for name in ("0.weight", "4.weight"):
        weight = network.get_parameter(name)
        found[name] = torch.zeros_like(weight)
        for part in torch.arange(len(examples)).tensor_split(-(-len(examples) // batch_size)):
            batch = examples[part]
            for index in range(weight.numel()):
                values = []
                for step in (1e-5, -1e-5):
                    weight.data.view(-1)[index] += step
                    values.append(loss(network(batch.images), batch.answers, batch.labels).item())
                    weight.data.view(-1)[index] -= step
                found[name].view(-1)[index] += ((values[0] - values[1]) / 2e-5) ** 2 * len(batch) / len(examples)
    return found


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-8)


# --- the loss


@given(pair=LOGITS, temperature=st.floats(0.5, 8))
def test_ca_kld_is_the_divergence_of_standardised_logits_in_numpy(pair: Tensor, temperature: float) -> None:
    def softmax(logits: np.ndarray) -> np.ndarray:
        scaled = (logits - logits.mean(1, keepdims=True)) / (logits.std(1, keepdims=True) + EPS) / temperature
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    student, teacher = (softmax(part.double().numpy()) for part in pair)
    expected = temperature**2 * (teacher * np.log(teacher / student)).sum(1).mean()
    assert float(ca_kld(pair[0], pair[1], temperature)) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert float(ca_kld(pair[0].double(), pair[1].double(), temperature)) == pytest.approx(expected, rel=1e-9)


@given(pair=LOGITS, scale=st.floats(0.1, 50), shift=st.floats(-20, 20))
def test_ca_kld_knows_neither_scale_nor_level_of_an_images_logits(pair: Tensor, scale: float, shift: float) -> None:
    student, teacher = pair.double()
    rows = torch.linspace(1, 2, len(student), dtype=torch.float64)[:, None]  # each image has its own
    expected = float(ca_kld(student, teacher, 3.0))
    assert float(ca_kld(scale * rows * student + shift * rows, teacher, 3.0)) == pytest.approx(expected, rel=1e-3)
    assert float(ca_kld(student, scale * rows * teacher - shift * rows, 3.0)) == pytest.approx(expected, rel=1e-3)
    assert float(ca_kld(scale * teacher + shift, teacher, 3.0)) == pytest.approx(0, abs=1e-6)
    assert expected > 0


def test_ca_kld_of_logits_that_are_all_equal_has_a_gradient() -> None:
    student = torch.zeros(2, 4, requires_grad=True)
    ca_kld(student, torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), 2.0).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_guided_loss_weighs_teacher_and_labels(alpha: float) -> None:
    student, teacher = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    expected = alpha * ca_kld(student, teacher, 2.0) + (1 - alpha) * functional.cross_entropy(student, labels)
    torch.testing.assert_close(guided_loss(alpha, 2.0)(student, teacher, labels), expected)


# --- gradients and scores


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("loss", [cross_entropy, guided_loss(0.6, 2.0)])
def test_gradients_agree_with_finite_differences(batch_size: int, loss: Any) -> None:
    network, examples = tiny(), tiny_examples()
    found = squared_gradients(network, ["0.weight", "4.weight"], examples, loss, batch_size=batch_size)
    assert_same(found, slow_squares(network.requires_grad_(False), examples, loss, batch_size))


@pytest.mark.parametrize("power", [1.0, 0.25])
def test_scores_agree_with_finite_differences(power: float) -> None:
    network, examples, loss = tiny().requires_grad_(False), tiny_examples(), guided_loss(0.5, 2.0)
    weights = {name: network.get_parameter(name) for name in ("0.weight", "4.weight")}
    found = damped(squared_gradients(network, weights, examples, loss, batch_size=2), power)
    slow = {name: square**power for name, square in slow_squares(network, examples, loss, 2).items()}
    assert_same(guided_scores("gradient", weights, found), slow)
    times_weights = {name: square * weights[name] ** 2 for name, square in slow.items()}
    assert_same(guided_scores("taylor", weights, found), times_weights)
    halved = {name: square / 2 for name, square in times_weights.items()}
    assert_same(guided_scores("fisher", weights, found), halved)


def test_gradients_leave_the_network_as_it_was() -> None:
    network = tiny().train()
    network[4].bias.requires_grad_(False)
    before = state(network)
    squared_gradients(network, ["0.weight"], tiny_examples(), cross_entropy, batch_size=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [p.requires_grad for p in network.parameters()] == [True, True, True, True, False]
    assert all(p.grad is None for p in network.parameters())


def test_fisher_with_sampled_labels_is_that_of_the_closed_form() -> None:
    # for logits = W x, the Fisher matrix's diagonal is the mean over images of x_j² p_i (1 - p_i)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False)).double().requires_grad_(False)
    drawn = torch.Generator().manual_seed(0)
    images = torch.randn(4, 6, 1, 1, generator=drawn, dtype=torch.float64).repeat(2000, 1, 1, 1)
    answers = network(images)
    labels = torch.multinomial(answers.softmax(1), 1, generator=drawn).squeeze(1)
    batch = Examples(images, answers, labels)
    # of all images at once, by hand: the residual's square times the input's
    residual = answers.softmax(1) - functional.one_hot(labels, 4)
    sampled = (residual.square().T @ images.flatten(1).square()) / len(images)
    assert_same(
        squared_gradients(network, ["1.weight"], batch[:12], cross_entropy, batch_size=1),
        {"1.weight": (residual[:12].square().T @ images[:12].flatten(1).square()) / 12},
    )
    p = answers.softmax(1)
    closed = ((p * (1 - p)).T @ images.flatten(1).square()) / len(images)
    torch.testing.assert_close(sampled, closed, rtol=0.1, atol=0.01)


def test_lamps_normalisation_spares_a_layer_that_small_scores_would_empty() -> None:
    scores = {"large": torch.tensor([4.0, 3, 2, 1]), "small": torch.tensor([0.4, 0.3])}
    alive = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    least = dict.fromkeys(scores, 0)
    assert not keep_best(comparable(scores, alive, "none"), 3, alive, least)["small"].any()
    kept = keep_best(comparable(scores, alive, "lamp"), 3, alive, least)
    # shares in what is left: 4/4, 3/7, 2/9, 1/10 and 0.4/0.4, 0.3/0.7
    assert kept["large"].tolist() == [True, False, False, False]
    assert kept["small"].tolist() == [True, True]


@pytest.mark.parametrize(("bad", "said"), [(0.0, "are all 0"), (float("nan"), "NaN"), (float("inf"), "infinity")])
def test_scores_that_say_nothing_are_refused(bad: float, said: str) -> None:
    with pytest.raises(RecipeError, match=f"scores .*{said}"):
        comparable({"a": torch.full((3,), bad)}, {"a": torch.ones(3, dtype=torch.bool)}, "none")


# --- pruning


@pytest.mark.parametrize("method", NETWORK)
def test_masks_are_exact_nest_repeat_and_leave_the_rest_alone(
    method: str, tiny_teacher: Teacher, dreams: DreamSet
) -> None:
    before = state(tiny_teacher.network)
    sparsities = (0.3, 0.55, 0.8)
    students = [prune(tiny_teacher, section(method, share), seed=3, dreams=dreams, device=CPU) for share in sparsities]
    for share, student in zip(sparsities, students, strict=True):
        kept = flat(student.mask.keep)
        assert int((~kept).sum()) == round(share * kept.numel())
        for name, value in student.network.state_dict().items():
            there = student.mask.keep.get(name, torch.ones_like(value, dtype=torch.bool))
            assert torch.equal(value, torch.where(there, before[name], torch.zeros_like(value))), name
        assert not student.network.training
        assert not any(parameter.requires_grad for parameter in student.network.parameters())
    for denser, sparser in pairwise(students):
        assert not (flat(sparser.mask.keep) & ~flat(denser.mask.keep)).any()
    again = prune(tiny_teacher, section(method, 0.55), seed=3, dreams=dreams, device=CPU)
    assert torch.equal(flat(again.mask.keep), flat(students[1].mask.keep))
    assert all(torch.equal(value, before[name]) for name, value in tiny_teacher.network.state_dict().items())


@pytest.mark.parametrize("method", NETWORK)
def test_pruning_further_keeps_what_is_gone_and_prunes_the_students_own_weights(
    method: str, tiny_teacher: Teacher, dreams: DreamSet
) -> None:
    start = prune(tiny_teacher, section("random", 0.4), seed=0)
    with torch.no_grad():
        for name, kept in start.mask.keep.items():
            start.network.get_parameter(name).mul_(1.5 * kept)
    before = state(start.network)
    student = prune(tiny_teacher, section(method, 0.7), seed=0, dreams=dreams, start=start, device=CPU)
    kept = flat(student.mask.keep)
    assert int((~kept).sum()) == round(0.7 * kept.numel())
    assert not (kept & ~flat(start.mask.keep)).any()
    for name, value in student.network.state_dict().items():
        there = student.mask.keep.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, torch.where(there, before[name], torch.zeros_like(value))), name
    assert all(torch.equal(value, before[name]) for name, value in start.network.state_dict().items())


@pytest.mark.parametrize("method", NETWORK)
def test_progress_ends_where_the_work_does(method: str, tiny_teacher: Teacher, dreams: DreamSet) -> None:
    seen: list[Progress] = []
    prune(
        tiny_teacher,
        section(method, num_images=32) if method in GUIDED else section(method),
        seed=0,
        dreams=dreams,
        device=CPU,
        report=seen.append,
    )
    units = {progress.unit: progress for progress in seen}
    other = {"synflow": {"weights"}, "teacher_guided": {"steps", "images"}, "optimal_brain": {"images", "layers"}}
    assert set(units) == other.get(method, {"images"})
    assert all(progress.stage == "pruning" and progress.done == progress.total for progress in units.values())


@pytest.mark.parametrize("method", GUIDED)
def test_guided_methods_ask_for_dreams_and_others_do_not(method: str, tiny_teacher: Teacher) -> None:
    assert section(method).needs_dreams
    assert not section("lamp").needs_dreams
    assert not section("synflow").needs_dreams
    with pytest.raises(RecipeError, match="looks at images, and there are none"):
        prune(tiny_teacher, section(method), seed=0)


@pytest.mark.parametrize("method", GUIDED)
def test_dreams_of_another_teacher_are_refused(method: str, tiny_teacher: Teacher, dreams: DreamSet) -> None:
    larger = DreamSet(torch.zeros(4, 3, 32, 32).half(), torch.zeros(4).long(), 0, 4)
    with pytest.raises(ArtifactError, match=r"\[3, 32, 32\], but the teacher takes \[3, 16, 16\]"):
        prune(tiny_teacher, section(method), seed=0, dreams=larger)
    more = DreamSet(dreams.images, dreams.targets + 2, 8, 6)
    with pytest.raises(ArtifactError, match="targets from 2 to 5"):
        prune(tiny_teacher, section(method), seed=0, dreams=more)


def test_a_teacher_alone_cannot_guide_its_own_copy_but_a_student(tiny_teacher: Teacher, dreams: DreamSet) -> None:
    alone = section("teacher_guided", 0.6, alpha=1.0)
    with pytest.raises(RecipeError, match="exactly zero"):
        prune(tiny_teacher, alone, seed=0, dreams=dreams)
    whole = {name: torch.ones_like(w, dtype=torch.bool) for name, w in tiny_teacher.network.named_parameters()}
    unpruned = Student(tiny_teacher.info, copy.deepcopy(tiny_teacher.network), PruningMask(whole))
    with pytest.raises(RecipeError, match="exactly zero"):
        prune(tiny_teacher, alone, seed=0, dreams=dreams, start=unpruned)
    start = prune(tiny_teacher, section("lamp", 0.3), seed=0)
    assert prune(tiny_teacher, alone, seed=0, dreams=dreams, start=start).mask.sparsity == pytest.approx(0.6, abs=1e-3)


def test_a_training_that_diverges_is_refused_with_the_field_to_change(tiny_teacher: Teacher, dreams: DreamSet) -> None:
    wild = section("teacher_guided", learning_rate=1e6, training_steps=6)
    with pytest.raises(RecipeError, match=r"pruning.learning_rate(.|\n)*diverged at 1e\+06"):
        prune(tiny_teacher, wild, seed=0, dreams=dreams, device=CPU)


def test_a_student_equal_to_its_teacher_has_a_zero_gradient(tiny_teacher: Teacher, dreams: DreamSet) -> None:
    subject = subject_of(tiny_teacher, dreams)
    examples = examples_of(subject, None, "targets")
    both = [
        squared_gradients(subject.network, subject.alive, examples, guided_loss(alpha, 4.0), batch_size=32)
        for alpha in (1.0, 0.5)
    ]
    teacher_alone, labels_too = (max(float(square.max()) for square in squares.values()) for squares in both)
    assert teacher_alone < 1e-12
    assert labels_too > 1e-8


def subject_of(teacher: Teacher, dreams: DreamSet) -> Subject:
    alive = {name: torch.ones_like(w, dtype=torch.bool) for name, w in teacher.network.named_parameters() if w.ndim > 1}
    return Subject(teacher, copy.deepcopy(teacher.network), alive, True, dreams, 0, CPU, silent)


def test_labels_are_targets_or_draws_from_the_teachers_softmax(tiny_teacher: Teacher, dreams: DreamSet) -> None:
    with torch.no_grad():
        tiny_teacher.network.fc.weight.mul_(0.3)  # less sure of itself
    examples = examples_of(subject_of(tiny_teacher, dreams), 20, "targets")
    assert torch.equal(examples.labels, dreams.targets[:20])
    assert torch.equal(examples.images, dreams.images[:20].float())
    torch.testing.assert_close(examples.answers, tiny_teacher.network(examples.images))
    many = DreamSet(dreams.images[:1].expand(4000, -1, -1, -1), torch.zeros(4000).long(), 0, 4)
    sampled = examples_of(subject_of(tiny_teacher, many), None, "sampled")
    counts = torch.bincount(sampled.labels, minlength=4) / 4000
    torch.testing.assert_close(counts, sampled.answers[0].softmax(0), atol=0.04, rtol=0)  # five standard deviations


def test_the_brief_training_lowers_the_loss_and_keeps_the_mask(tiny_teacher: Teacher, dreams: DreamSet) -> None:
    start: Student = prune(tiny_teacher, section("lamp", 0.7), seed=0)
    examples = examples_of(subject_of(tiny_teacher, dreams), None, "targets")
    loss, keep = guided_loss(0.5, 4.0), dict(start.mask.keep)
    before = state(start.network)

    def value(network: nn.Module) -> float:
        with torch.no_grad():
            return float(loss(network(examples.images), examples.answers, examples.labels))

    settings = {"steps": 12, "batch_size": 16, "learning_rate": 0.01}
    trained = briefly_trained(start.network, examples, loss, keep, drawn=generator(0, "x"), **settings)
    again = briefly_trained(start.network, examples, loss, keep, drawn=generator(0, "x"), **settings)
    assert value(trained) < 0.8 * value(start.network)
    assert all(not trained.get_parameter(name)[~kept].any() for name, kept in keep.items())
    assert all(torch.equal(v, again.state_dict()[name]) for name, v in trained.state_dict().items())
    assert all(torch.equal(v, before[name]) for name, v in start.network.state_dict().items())
    for name, value_ in trained.state_dict().items():
        if "running" in name:
            assert torch.equal(value_, before[name]), name
