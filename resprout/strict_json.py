"""JSON from strangers: text that reads one way only, and that every later step can handle."""

from __future__ import annotations

import json
from typing import Any

DEPTH = 100  # a chain of artifacts nests two levels a stage; Python's own limit depends on who calls


def parse(content: bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON in UTF-8, names a field twice (a person and a program would each read another one),
            is nested too deep, or holds text that cannot be written again (half a surrogate pair).
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_each_once)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _check_depth(value)
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!a} twice")
    return fields


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("it is nested too deep")
