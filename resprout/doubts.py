"""Whether a teacher's accuracy on a labelled test set can be believed: a wrong class order, or an answer by chance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from resprout.confusion import num_images, num_right, per_label, per_prediction
from resprout.types import Evaluation

DEVIATIONS = 2.33
"""By how many standard deviations a teacher must be better than chance: what one in a hundred is by luck."""
LUCK = 1e-3
"""How likely answers by chance may look like a class order, at most."""
FEW = 5
"""Images of other classes than the largest from which on a teacher's answers can be told from a constant."""
CONSTANT = 0.95
"""The share of answers from which on a teacher is said to give one answer."""
SHOWN = 25


@dataclass(frozen=True)
class Doubt:
    """Why a teacher's accuracy says nothing of its students.

    Args:
        text: for people; it says what to look at.
        class_names: in the order of the logits that fits the teacher's answers; empty where it is not the order, or
            not all of it shows.
    """

    text: str
    class_names: tuple[str, ...] = ()


def doubt_about(evaluation: Evaluation) -> Doubt | None:
    """Why the teacher's accuracy is not to be believed; None where it is, or where there is no labelled test set."""
    teacher = next((score for score in evaluation.scores if score.name == "teacher"), None)
    if teacher is None or teacher.top1 is None:
        return None
    if teacher.confusion is not None and (moved := moved_classes(teacher.confusion, len(evaluation.class_names))):
        return _order(moved, teacher.confusion, evaluation.class_names)
    if _is_chance(teacher.top1, teacher.confusion, evaluation.num_test_images, len(evaluation.class_names)):
        return _chance(teacher.top1, teacher.confusion, evaluation)
    return None


def moved_classes(confusion: Tensor, num_classes: int) -> dict[int, int]:
    """Which labels the teacher answers with another class, one for one, where that is a wrong order and no mistake.

    Labels count that change places among themselves, as two that the teacher swaps; or most labels, wherever they go.

    Args:
        confusion: the teacher's, int64, shape (pairs, 3).
        num_classes: of the teacher.

    Returns:
        label -> the class that answers it; {} where the order is as it should be, or too few images tell.
    """
    own, given = _own_and_given(confusion)
    labels = set(confusion[:, 0].tolist())
    moved = {
        label: prediction
        for label, (prediction, count) in given.items()
        if prediction != label and count > 2 * own.get(label, 0)
    }
    mostly = 2 * len(moved) > len(labels)
    if not mostly:
        moved = {label: moved[label] for label in _on_cycles(moved)}
    judged = labels if mostly else moved.keys()
    images = per_label(confusion, num_classes)
    hits = sum(given[label][1] if label in moved else own.get(label, 0) for label in judged)
    tried = sum(int(images[label]) for label in judged)
    return moved if moved and _is_no_luck(hits, tried, len(judged), len(labels), num_classes) else {}


def fitting_names(moved: Mapping[int, int], names: Sequence[str]) -> tuple[str, ...]:
    """Class names in the order of the logits, given which labels they answer; empty where not all of it shows."""
    fitting = {prediction: names[label] for label, prediction in moved.items()}
    stayed = [label for label in range(len(names)) if label not in moved]
    fitting |= {label: names[label] for label in stayed if label not in fitting}
    free = [label for label in range(len(names)) if label not in fitting]
    homeless = [names[label] for label in stayed if fitting.get(label) != names[label]]
    if len(free) > 1:
        return ()
    fitting |= dict(zip(free, homeless, strict=True))
    return tuple(fitting[label] for label in range(len(names)))


def _own_and_given(confusion: Tensor) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
    """How often each label is answered with itself; and the classes that answer labels, most frequent pairs first, no
    class twice, as label -> (class, count).
    """
    pairs = confusion.tolist()
    own = {label: count for label, prediction, count in pairs if label == prediction}
    given: dict[int, tuple[int, int]] = {}
    taken: set[int] = set()
    for label, prediction, count in sorted(pairs, key=lambda pair: (-pair[2], pair[0] != pair[1])):
        if label not in given and prediction not in taken:
            given[label] = (prediction, count)
            taken.add(prediction)
    return own, given


def _on_cycles(targets: Mapping[int, int]) -> list[int]:
    """Those that a walk from target to target comes back to."""
    found: list[int] = []
    done: set[int] = set()
    for start in targets:
        path: dict[int, None] = {}
        node = start
        while node in targets and node not in done and node not in path:
            path[node] = None
            node = targets[node]
        if node in path:
            found += list(path)[list(path).index(node) :]
        done |= path.keys()
    return found


def _is_no_luck(hits: int, tried: int, judged: int, labels: int, num_classes: int) -> bool:
    """Whether answers by chance would be so often right under some order of some `judged` of the labels less than
    `LUCK` times: Chernoff's bound, over all that could have been chosen.
    """
    share, chance = hits / tried, 1 / num_classes
    if share <= chance:
        return False
    divergence = share * math.log(share / chance)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - chance))
    orders = math.lgamma(num_classes + 1) - math.lgamma(num_classes - judged + 1)
    subsets = math.log(math.comb(labels, judged))
    return tried * divergence > orders + subsets - math.log(LUCK)


def _is_chance(top1: float, confusion: Tensor | None, images: int, num_classes: int) -> bool:
    """Whether answers that know nothing of the image would be right as often: those of any class alike, or, where the
    labels can tell, those that give each class as often as the teacher does (Fleiss, Cohen and Everitt, 1969).
    """
    even = 1 / num_classes
    if _is_near(top1, even, math.sqrt(even * (1 - even) / max(images, 1))):
        return True
    if confusion is None:
        return False
    labels = per_label(confusion, num_classes).double() / images
    if round(images * (1 - float(labels.max()))) < FEW:
        return False
    answers = per_prediction(confusion, num_classes).double() / images
    alike = float((labels * answers).sum())
    variance = alike + alike**2 - float((labels * answers * (labels + answers)).sum())
    return _is_near(top1, alike, math.sqrt(max(variance, 0) / images))


def _is_near(top1: float, chance: float, deviation: float) -> bool:
    # of a few images all may be right by chance; a teacher that is right on most is believed
    return top1 <= chance + DEVIATIONS * deviation + 1e-9 and top1 < (1 + chance) / 2


def _order(moved: Mapping[int, int], confusion: Tensor, names: Sequence[str]) -> Doubt:
    fitting = fitting_names(moved, names)
    hits = sum(count for label, answer, count in confusion.tolist() if moved.get(label, label) == answer)
    right, would = (f"{100 * count / num_images(confusion):.1f} %" for count in (num_right(confusion), hits))
    pairs = [f"{names[answer]} for {names[label]}" for label, answer in moved.items()]
    shown = ", ".join(pairs[:3]) + (f", … ({len(pairs)} in all)" if len(pairs) > 3 else "")
    if fitting and len(fitting) <= SHOWN:
        remedy = f"Set teacher.class_names: [{', '.join(json.dumps(name, ensure_ascii=False) for name in fitting)}]"
    else:
        remedy = "Set teacher.class_names in the order of the teacher's logits" + (
            ", as the evaluation's summary.json has them" if fitting else ""
        )
    return Doubt(
        f"The classes are in another order than the teacher's: it answers {shown}, and so is right on {right} of the "
        f"labelled images, where that order would make it {would}. {remedy}, and run again: until then accuracy says "
        "nothing of pruning or recovery.",
        fitting,
    )


def _chance(top1: float, confusion: Tensor | None, evaluation: Evaluation) -> Doubt:
    text = (
        f"The teacher itself is right on {100 * top1:.1f} % of {evaluation.num_test_images:,} labelled images, "
        "no better than chance, so that they say nothing of pruning or recovery."
    )
    if confusion is not None:
        answers = per_prediction(confusion, len(evaluation.class_names))
        if (share := float(answers.max()) / num_images(confusion)) >= CONSTANT:
            text += f" It answers {evaluation.class_names[int(answers.argmax())]} to {100 * share:.1f} % of them."
    return Doubt(
        f"{text} Suspect the normalisation (teacher.input: mean and std), the order of the classes "
        "(teacher.class_names) and the labels of the test set."
    )
