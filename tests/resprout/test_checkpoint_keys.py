"""What a checkpoint's key stands for: everything that determines the result, and nothing that looks like it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from resprout import devices, precision, recovery, synthesis
from resprout.checkpoints import fingerprint
from resprout.recipe import DeepInversionSection, DistillationSection, ReconstructionSection
from resprout.statistics import extract
from resprout.types import BNStatistics, DreamSet, PruningMask, Student, Teacher

DREAMS = DeepInversionSection(num_images=8, num_held_out=0, group_size=8, iterations=1)
TRAINING = DistillationSection(epochs=1, batch_size=32, start="repaired")


class _Asked(Exception):  # noqa: N818 - it ends the work where the key is known
    pass


class Asking:
    """Ends a stage when it asks for its state."""

    def load(self, key: str, *_: Any, **__: Any) -> None:
        raise _Asked(key)

    def save(self, *_: Any) -> None:
        pytest.fail("nothing was made")


def key_of(stage: Callable[..., Any], *given: Any, **named: Any) -> str:
    with pytest.raises(_Asked) as asked:
        stage(*given, seed=0, checkpoint=Asking(), **named)
    return str(asked.value)


def with_input(teacher: Teacher, **changed: Any) -> Teacher:
    return replace(teacher, info=replace(teacher.info, input=replace(teacher.info.input, **changed)))


def with_info(teacher: Teacher, **changed: Any) -> Teacher:
    return replace(teacher, info=replace(teacher.info, **changed))


def moved(statistics: BNStatistics, **changed: Any) -> BNStatistics:
    first, *others = statistics.layers
    return BNStatistics((replace(first, **changed), *others))


def test_dreams_of_another_teacher_input_statistic_or_machine_are_never_picked_up(
    tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = extract(tiny_teacher)
    first = found.layers[0]

    def key(teacher: Teacher = tiny_teacher, statistics: BNStatistics = found) -> str:
        return key_of(synthesis.synthesize, teacher, statistics, DREAMS)

    keys = {
        "as it is": key(),
        "mean": key(with_input(tiny_teacher, mean=(0.1, 0.2, 0.3))),
        "std": key(with_input(tiny_teacher, std=(0.3, 0.2, 0.1))),
        "class names": key(with_info(tiny_teacher, class_names=tuple("abcdefghij"[: tiny_teacher.info.num_classes]))),
        "arguments": key(with_info(tiny_teacher, arguments={"width": 3})),
        "bfloat16": key(with_info(tiny_teacher, bfloat16=False)),
        "statistics' mean": key(statistics=moved(found, mean=first.mean + 1)),
        "statistics' variance": key(statistics=moved(found, variance=first.variance + 1)),
        "statistics' eps": key(statistics=moved(found, eps=2 * first.eps)),
    }
    natively = precision.resolve("auto", torch.device("cpu")) == torch.bfloat16
    for module, name, value in (
        (precision, "_has_bfloat16", lambda _: not natively),
        (synthesis, "__version__", "0.0.0"),
        (torch, "__version__", "9.9.9"),
        (devices, "_kind", lambda _: "another machine"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, value)
            keys[name] = key()
    assert len(set(keys.values())) == len(keys), keys


@pytest.mark.parametrize("section", [TRAINING, ReconstructionSection()], ids=["distillation", "reconstruction"])
def test_recovery_of_another_mask_split_or_machine_is_never_picked_up(
    tiny_teacher: Teacher,
    tiny_student: Student,
    tiny_dreams: DreamSet,
    section: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key(teacher: Teacher = tiny_teacher, student: Student = tiny_student, dreams: DreamSet = tiny_dreams) -> str:
        return key_of(recovery.recover, teacher, student, dreams, section)

    name, keep = next(iter(tiny_student.mask.keep.items()))
    looser = PruningMask({**tiny_student.mask.keep, name: torch.ones_like(keep)})
    keys = {
        "as it is": key(),
        "mask": key(student=replace(tiny_student, mask=looser)),
        "what is held out": key(dreams=replace(tiny_dreams, num_held_out=tiny_dreams.num_held_out - 2)),
    }
    for module, patched_name, value in (
        (recovery, "__version__", "0.0.0"),
        (torch, "__version__", "9.9.9"),
        (devices, "_kind", lambda _: "another machine"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, patched_name, value)
            keys[patched_name] = key()
    assert len(set(keys.values())) == len(keys), keys


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
PARTS = st.recursive(
    LEAVES | st.binary(max_size=4).map(lambda data: torch.tensor(list(data), dtype=torch.uint8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@given(st.lists(PARTS, max_size=3), st.lists(PARTS, max_size=3))
def test_two_lists_of_parts_have_one_fingerprint_only_if_they_are_the_same(one: list[Any], other: list[Any]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == same(one, other)


def test_bytes_that_move_from_one_part_to_the_next_are_another_fingerprint() -> None:
    plain = torch.zeros(2, dtype=torch.uint8)
    named = {
        "names and bytes": [{"a": plain, "ab": plain}, {"aa": plain, "b": plain}],
        "parts": [["ab", "c"], ["a", "bc"], ["abc"], [["a", "b"], "c"]],
        "kinds": [["1"], [1], [1.0], [True], [[1]], [{"1": 1}], [torch.tensor(1)], [torch.tensor([1])]],
        "dtypes": [torch.zeros(4, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.int16)],
        "modules": [nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())],
    }
    for what, parts in named.items():
        for one, other in itertools.combinations(parts, 2):
            assert fingerprint(one) != fingerprint(other), what


def test_a_fingerprint_has_at_least_128_bits_and_is_the_same_in_every_memory_layout() -> None:
    images = torch.randn(2, 3, 4, 4)
    assert len(bytes.fromhex(fingerprint(images))) >= 16
    assert fingerprint(images) == fingerprint(images.contiguous(memory_format=torch.channels_last))


def test_buffers_that_no_state_dict_holds_count() -> None:
    def table(value: float) -> nn.Module:
        module = nn.Module()
        module.register_buffer("table", torch.full((2,), value), persistent=False)
        return module

    assert fingerprint(table(0)) != fingerprint(table(1))
