"""Text in which no address holds a secret: what stages and KFP say of what they are given, before anybody keeps it."""

from __future__ import annotations

import io
import re
from typing import TextIO

# A backslash is no part of an address: JSON and Python put it, once for each time that a text was quoted.
_CHAR = r"""(?:[^\s"<>\\]|\\+(?:u[0-9a-f]{4}|U[0-9a-f]{8}|x[0-9a-f]{2}|/))"""
_ADDRESS = re.compile(
    rf"(?P<scheme>https?:\\*/\\*/)(?:(?:(?![/?#]){_CHAR})*@)?(?P<place>(?:(?![?#]){_CHAR})*)(?:[?#]{_CHAR}*)?",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text, its web addresses without user, password, query (a signature may be in it) and fragment.

    However they are written: as they are, in JSON with its escapes, in JSON in JSON.
    """
    return _ADDRESS.sub(r"\g<scheme>\g<place>", text)


class Redacted(io.TextIOBase):
    """A log that keeps no secret of an address."""

    def __init__(self, log: TextIO) -> None:
        self._log = log

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        self._log.write(redacted(text))
        return len(text)

    def flush(self) -> None:
        """See `io.TextIOBase`."""
        self._log.flush()
