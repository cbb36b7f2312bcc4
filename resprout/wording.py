"""How messages put several things into a few words."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many there are where that is more: `a, b, c, … (7 in all)`."""
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
