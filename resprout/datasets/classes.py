"""Which of the teacher's logits each class of a labelled set is."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from resprout.errors import DatasetError
from resprout.types import ModelInfo
from resprout.wording import problem_of_name

SHOWN = 10
"""How much of a mapping is written out."""
PASTED = 25
"""Up to how many class names are written out to be pasted into a recipe."""

_BY_NAME = "classes map to logits by name: "


@dataclass(frozen=True)
class Matched:
    """Classes and the logits that they are.

    Args:
        labels: the teacher's class number of each name, in the order of the names.
        class_names: one per logit: the teacher's, or where it has none, the set's own.
        notes: how they were matched, for people.
    """

    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def match(names: Sequence[str], info: ModelInfo, source: str) -> Matched:
    """Class folders to logits: by name where the teacher has names, else sorted as text, as ImageFolder does.

    Args:
        names: the folders', sorted as text.
        info: the teacher's.
        source: what messages call the set.

    Raises:
        DatasetError: a class that the teacher does not know, two folders of one class, or too few to count.
    """
    _check_names(names, source)
    return _by_name(names, info, source) if info.named else _in_order(names, info, source)


def match_packed(names: Sequence[str] | None, info: ModelInfo, source: str) -> Matched:
    """A packed set's label numbers to logits: by their names where both have names, else they are logits' numbers.

    Args:
        names: one per label number; None where the file has none.
        info, source: as for `match`.

    Raises:
        DatasetError: as `match`.
    """
    numbers = tuple(map(str, range(info.num_classes)))
    own = numbers if names is None else tuple(names)
    _check_names(own, source)
    if own == info.class_names and info.named:
        return Matched(
            tuple(range(len(own))), own, (f"classes map to logits by name: {_arrows(dict(enumerate(own)))}",)
        )
    if own != numbers and info.named:
        return _by_name(own, info, source)
    if len(own) != info.num_classes:
        raise _incomplete(own, info, source)
    shown = info.class_names if info.named else own
    note = f"no class names in {'the file' if info.named else 'the teacher'}: labels are the logits' numbers: "
    return Matched(tuple(range(len(own))), shown, (note + _arrows(dict(enumerate(shown))),))


def known_among(names: Iterable[str], info: ModelInfo) -> int:
    """How many of these names are classes of the teacher."""
    known = _Known(info.class_names)
    return sum(known.label(name) is not None for name in names)


def pasted(names: Sequence[str]) -> str:
    """`teacher.class_names: ["cat", "dog"]`, to be pasted into a recipe; shortened where it is long."""
    shown = names if len(names) <= PASTED else names[:SHOWN]
    more = "" if len(names) <= PASTED else f", … ({len(names)} in all)"
    return f"teacher.class_names: [{', '.join(json.dumps(name, ensure_ascii=False) for name in shown)}{more}]"


class _Known:
    """The teacher's classes, found by name: as it is written, in another Unicode form, or as a number."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._exact = {name: label for label, name in enumerate(class_names)}
        self._composed = {unicodedata.normalize("NFC", name): label for name, label in self._exact.items()}
        all_numbers = all(name.isdecimal() for name in class_names)
        self._numbers = {int(name): label for name, label in self._exact.items()} if all_numbers else {}

    def label(self, name: str) -> int | None:
        if name in self._exact:
            return self._exact[name]
        found = self._composed.get(unicodedata.normalize("NFC", name))
        return self._numbers.get(int(name)) if found is None and name.isdecimal() else found


def _check_names(names: Sequence[str], source: str) -> None:
    for name in names:
        if problem := problem_of_name(name):
            raise DatasetError(
                f"{source} has a class {name!a:.80}, which {problem}",
                why="reports, tables and terminals show it",
                now="rename it",
            )


def _by_name(names: Sequence[str], info: ModelInfo, source: str) -> Matched:
    known = _Known(info.class_names)
    taken: dict[int, str] = {}
    for name in names:
        label = known.label(name)
        if label is None:
            raise _unknown(name, info, source)
        if label in taken:
            raise DatasetError(
                f"{source} has two classes, {taken[label]!r} and {name!r}, that are the teacher's class {label}",
                why=f"it is called {info.class_names[label]!r}",
                now="put their images together, or rename the one that is another class",
            )
        taken[label] = name
    mapping = "; ".join(filter(None, (f"{_BY_NAME}{_arrows(taken)}", _absent(len(names), info))))
    return Matched(tuple(taken), info.class_names, (mapping,))


def _in_order(names: Sequence[str], info: ModelInfo, source: str) -> Matched:
    if len(names) != info.num_classes:
        raise _incomplete(names, info, source)
    counted = sorted(names, key=_by_number)
    mapping = _arrows(dict(enumerate(names)))
    if counted != list(names):
        note = (
            f"no class names: folders map to logits sorted as text, as torchvision's ImageFolder has them: {mapping}; "
            f"where the teacher counts them by number, set {pasted(counted)}"
        )
    elif all(name.isdecimal() for name in names):
        note = f"no class names: folders map to logits by number: {mapping}"
    else:
        note = (
            f"no class names: folders map to logits in alphabetical order: {mapping}; "
            "set teacher.class_names where the teacher was trained in another order"
        )
    return Matched(tuple(range(len(names))), tuple(names), (note,))


def _unknown(name: str, info: ModelInfo, source: str) -> DatasetError:
    alike = {known.casefold(): known for known in info.class_names}
    near = [alike[found] for found in get_close_matches(name.casefold(), alike, n=1)]
    return DatasetError(
        f"{source} has a class {name!r} that the teacher does not know"
        + (f"; did you mean {near[0]!r}?" if near else ""),
        now=f"use the teacher's class names: {', '.join(info.class_names[:SHOWN])}"
        + (f", … ({info.num_classes} in all)" if info.num_classes > SHOWN else "")
        + "; or give teacher.class_names the set's, in the order of the logits",
    )


def _incomplete(names: Sequence[str], info: ModelInfo, source: str) -> DatasetError:
    return DatasetError(
        f"{source} has {len(names)} classes, the teacher has {info.num_classes}",
        why="the teacher names no classes, so they can only be matched by their order, which needs all of them",
        now="set teacher.class_names in the recipe: classes are then found by name, and not all have to be there",
    )


def _absent(count: int, info: ModelInfo) -> str:
    return f"{info.num_classes - count} of the teacher's {info.num_classes} are not there" * (count < info.num_classes)


def _arrows(by_label: Mapping[int, str]) -> str:
    shown = ", ".join(f"{name} -> {label}" for label, name in list(by_label.items())[:SHOWN])
    return shown + (f", … ({len(by_label)} in all)" if len(by_label) > SHOWN else "")


def _by_number(name: str) -> list[tuple[int, str]]:
    """A sorting key by which `c2` comes before `c10`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
