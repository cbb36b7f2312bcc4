"""Text of others, as a stage's log, a message of Kubernetes or a run's name: shown, and nothing more.

A terminal, a CI system that reads a build's log, and Markdown each take commands from text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from resprout.wording import printable

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# and, of what GitHub makes a link of by itself, a part
_MEANING = re.compile(r"([\\`*_\[\]<>|~&#$@!]|(?<=:)/(?=/)|(?<=www)\.)", re.IGNORECASE)


def shown(text: str) -> str:
    """Text for a terminal or a build's log: without colours, and with nothing that either would act on."""
    return printable(_COLOURS.sub("", text))


def escaped(text: str) -> str:
    """Text for one line of Markdown, or for a cell of a table: as it is, without links, pictures or HTML."""
    return _MEANING.sub(r"\\\1", " ".join(shown(text).split()))


def fenced(lines: Iterable[str]) -> list[str]:
    """Lines of Markdown that show text as it is, whatever fences it holds itself."""
    text = [shown(line) for line in lines]
    fence = "`" * max(4, 1 + max((len(run) for line in text for run in re.findall("`+", line)), default=0))
    return [fence, *text, fence]
