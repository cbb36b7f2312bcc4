"""What to say where a checkpoint and a network do not fit: the names of both, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher, get_close_matches

from resprout.errors import UnsupportedModelError
from resprout.sources.matching import Match
from resprout.sources.names import Names, is_statistic

_ROWS = 8
_LOOKED_AT = 24  # comparing all names with all takes seconds for large networks
_NOTHING = "-"


def misfit(match: Match, own: Names, source: str, architecture: str) -> UnsupportedModelError:
    """The error for the nearest set of weights that there is."""
    statistics = {name for name in own.wanted if is_statistic(name)}
    if {*match.missing} == statistics and not match.misshapen and not match.left_over:
        return _without_statistics(source, architecture, len(statistics) // 2)
    counts = [
        f"{len(names)} {what}"
        for what, names in (
            ("missing", match.missing),
            ("of another shape", match.misshapen),
            ("left over", match.left_over),
        )
        if names
    ]
    return UnsupportedModelError(
        f"the weights of '{source}' do not fit {architecture}: {', '.join(counts)} (it has {len(own.wanted)} tensors)\n"
        + "\n".join(_table(match, own, source, architecture)),
        why="they were saved from another network",
        now="correct teacher.architecture, teacher.arguments, teacher.num_classes or the channels of teacher.input",
    )


def _without_statistics(source: str, architecture: str, layers: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"'{source}' holds no BatchNorm statistics, where {architecture} has {layers} BatchNorm layers",
        why="dreams are synthesized from these statistics; BatchNorm was folded away, or they were not saved",
        now="take a checkpoint with running_mean and running_var, from before any folding or export",
    )


def _table(match: Match, own: Names, source: str, architecture: str) -> Iterator[str]:
    rows = _rows(match, own)
    shown, hidden = [(f"in '{source}'", f"in {architecture}"), *rows[:_ROWS]], rows[_ROWS:]
    if hidden:
        left, right = (sum(row[side] != _NOTHING for row in hidden) for side in (0, 1))
        shown.append((f"… {left} more" if left else _NOTHING, f"… {right} more" if right else _NOTHING))
    width = max(len(left) for left, _ in shown)
    yield from (f"    {left:<{width}}  {right}" for left, right in shown)


def _rows(match: Match, own: Names) -> list[tuple[str, str]]:
    """A name of the checkpoint and one of the network a row, the nearest first."""

    def there(name: str) -> str:
        entry = match.entries[name]
        return f"{entry.origin} {list(entry.tensor.shape)}"

    rows = [(1.0, there(found), own.describe(name)) for name, found in match.misshapen.items()]
    free = {name.removeprefix(match.prefix): name for name in (*match.left_over, *match.passed_over)}
    for index, name in enumerate(match.missing):
        short = name.removeprefix(match.lacking)
        candidates = list(free)[: 8 * _LOOKED_AT] if index < _LOOKED_AT else []
        near = next(iter(get_close_matches(short, candidates, n=1)), None)
        closeness = SequenceMatcher(None, short, near).ratio() if near else 0.1
        rows.append((closeness, there(free.pop(near)) if near else _NOTHING, own.describe(name)))
    rows += [(0.0, there(name), _NOTHING) for name in free.values() if name in match.left_over]
    return [row[1:] for row in sorted(rows, key=lambda row: -row[0])]
