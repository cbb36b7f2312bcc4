"""Valid inputs, damaged: finds more than noise does, which the first check refuses."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_TEXT = st.sampled_from(["", ".", "..", "/etc/passwd", "a/b", "\x1b[31m", "\ud800", "\0", "0" * 64, "x" * 10_000, "é"])
_NUMBER = st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf")])
_LEAF = st.none() | st.booleans() | _NUMBER | _TEXT
JSON = st.recursive(_LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3))


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes in which some were flipped, replaced, cut out, doubled, or cut off."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        until = at + draw(st.sampled_from([1, 1, 1, 2, 8, 64, len(content)]))
        piece = draw(
            st.sampled_from([b"", bytes(content[at:until]) * 2])
            | st.binary(min_size=1, max_size=8)
            | st.just(bytes(byte ^ 1 for byte in content[at:until]))
        )
        content[at:until] = piece
    return bytes(content)


@st.composite
def changed(draw: st.DrawFn, valid: Any) -> Any:
    """A JSON value in which some fields were replaced, removed, or joined by others."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    return value


def changed_json(valid: Any) -> SearchStrategy[bytes]:
    """The text of such a value; now and then damaged itself."""
    texts = changed(valid).map(lambda value: json.dumps(value).encode())
    return texts | texts.flatmap(damaged)


def _change(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 7)):
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        how = draw(st.sampled_from(["deeper", "deeper", "deeper", "removed", "joined"]))
        if how == "removed":
            del value[key]
        elif how == "joined" and isinstance(value, dict):
            value[draw(_TEXT)] = draw(JSON)
        elif how == "joined":
            value.append(draw(JSON))
        else:
            value[key] = _change(draw, value[key])
        return value
    return draw(JSON)
