"""What to say where a checkpoint and a network do not fit: the names of both, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher, get_close_matches
from itertools import zip_longest

from resprout.errors import UnsupportedModelError
from resprout.sources.matching import Match
from resprout.sources.names import Names, common_prefixes, is_statistic

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
        why="dreams are synthesized from these statistics; all else of the network is there",
        now="save the whole model.state_dict(), which holds running_mean and running_var beside the parameters",
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

    rows = [(there(found), own.describe(name)) for name, found in match.misshapen.items()]
    strangers = [*match.left_over, *match.passed_over]
    free = {name.removeprefix(common_prefixes(strangers)[-1]): name for name in strangers}
    near: list[tuple[float, str, str]] = []
    for name in match.missing[:_LOOKED_AT]:
        short = name.removeprefix(match.lacking)
        for other in get_close_matches(short, list(free)[: 8 * _LOOKED_AT], n=1):
            near.append((SequenceMatcher(None, short, other).ratio(), free.pop(other), name))
    near.sort(key=lambda pair: -pair[0])
    rows += [(there(other), own.describe(name)) for _, other, name in near]
    paired = {name for _, _, name in near}
    lonely = [own.describe(name) for name in match.missing if name not in paired]
    left_over = [there(name) for name in free.values() if name in match.left_over]
    return rows + list(zip_longest(left_over, lonely, fillvalue=_NOTHING))
