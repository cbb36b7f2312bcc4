"""JSON from strangers: text that reads one way only, and that every later step can handle."""

from __future__ import annotations

import json
from typing import Any

DEPTH = 100  # a chain of artifacts nests two levels a stage; Python's own limit depends on who calls
VALUES = 1_000_000  # as Python's objects some hundred bytes each; the longest chains with names of classes have half


def parse(content: bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON in UTF-8, names a field twice (a person and a program would each read another one),
            is nested too deep, holds too many values, or text that cannot be written again (half a surrogate pair).
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > 4 * VALUES:  # before there are objects; names hold commas, too
        raise _too_many()
    try:
        value = json.loads(content.decode(), object_pairs_hook=_each_once)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _check_shape(value)
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!a} twice")
    return fields


def _check_shape(value: Any) -> None:
    level, count = [value], 0
    for _ in range(DEPTH):
        count += len(level)
        if count > VALUES:
            raise _too_many()
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("it is nested too deep")


def _too_many() -> ValueError:
    return ValueError(f"it holds more than {VALUES:,} values")
