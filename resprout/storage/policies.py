"""Bucket policies as what they mean: servers give one back in another form than it was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

_UNIMPORTANT = ("Sid", "Id")


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two policies say the same, whatever the order of their statements and lists, and however written.

    MinIO turns `"Principal": "*"` into `{"AWS": ["*"]}` and every text into a list of one; it and others sort.
    """
    return _meaning(one) == _meaning(other)


def _meaning(policy: Mapping[str, Any]) -> tuple[Any, Counter[Any]]:
    statements = policy.get("Statement", [])
    each = [statements] if isinstance(statements, Mapping) else statements
    return policy.get("Version"), Counter(map(_plain, each))


def _plain(value: Any) -> Any:
    """A value in one form: a mapping as the set of its pairs, a text or a list as the set of its texts."""
    if isinstance(value, Mapping):
        return frozenset(
            (name, _plain({"AWS": part} if name.endswith("Principal") and part == "*" else part))
            for name, part in value.items()
            if name not in _UNIMPORTANT
        )
    parts = value if isinstance(value, list) else [value]
    return frozenset(str(part).lower() if isinstance(part, bool) else str(part) for part in parts)
