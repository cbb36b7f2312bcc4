"""How messages put several things into a few words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_NAME = 256
"""Characters of a name: the longest of ImageNet's 21,841 classes, with all its synonyms, has 175."""
# after these, text reads in another order than it is stored in
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# to CI systems that read a build's log: `::error::` first on a line, `##[error]` and `##vso[…]` anywhere
_COMMANDS = re.compile(r"^(\s*:)(?=:)|(#)(?=#\w*\[)", re.MULTILINE)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many there are where that is more: `a, b, c, … (7 in all)`."""
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def is_plain(text: str) -> bool:
    """Whether a name shows as what it is: on one line, in UTF-8, without commands to a terminal.

    Characters that join or part others are plain: some scripts cannot do without.
    """
    return not any(unicodedata.category(it) in ("Cc", "Cs", "Zl", "Zp") or it in _DIRECTIONS for it in text)


def problem_of_name(name: object) -> str:
    """What is wrong with the name of a class or an architecture, as the end of a sentence; "" where nothing is."""
    if not isinstance(name, str):
        return "is no text"
    if not name.strip():
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has more than {MAX_NAME} characters"
    return "" if is_plain(name) else "holds what cannot be shown on one line"


def printable(text: str, breaks: str = "\n\t") -> str:
    """Text as it may be shown to a person: whatever is not plain as its escape, but for `breaks`.

    A blank parts what would be a command to a CI system.
    """
    plain = "".join(it if it in breaks or is_plain(it) else it.encode("unicode_escape").decode() for it in text)
    return _COMMANDS.sub(r"\1\2 ", plain)
