"""docs/troubleshooting.md quotes messages; each must be one that the code can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
HOLE = "…"  # in the page and here: what differs from case to case


def quoted() -> list[str]:
    tables = re.findall(r"^\| message \|.*?\n\|-+\|-+\|\n((?:\|.*\n)+)", PAGE.read_text(), flags=re.MULTILINE)
    assert len(tables) > 3
    return [re.match(r"\| `([^`]+)` \|", row)[1] for table in tables for row in table.splitlines()]  # type: ignore[index]


def strings(tree: ast.AST) -> Iterator[str]:
    """Every text in the source, with a hole for each value that is put in, and f-strings nested in others joined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
            yield text(node)


def text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return text(node.left) + text(node.right)
    if isinstance(node, ast.IfExp):
        return text(node.body)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else HOLE


@pytest.fixture(scope="module")
def messages() -> list[str]:
    sources = [path for room in ("resprout", "components", "pipeline") for path in (ROOT / room).rglob("*.py")]
    found = {line for path in sources for line in strings(ast.parse(path.read_text()))}
    return [re.sub(f"{HOLE}+", HOLE, line) for line in found]


def is_said(message: str, messages: list[str]) -> bool:
    pattern = re.compile(".*".join(re.escape(part) for part in message.split(HOLE)), flags=re.DOTALL)
    return any(pattern.search(line) for line in messages)


@pytest.mark.parametrize("message", quoted())
def test_every_message_on_the_page_is_one_that_the_code_says(message: str, messages: list[str]):
    assert len(message.replace(HOLE, "").strip()) > 10, "too short to find anything by"
    assert is_said(message, messages)


def test_a_message_that_nobody_says_is_noticed(messages: list[str]):
    assert not is_said("the flux capacitor is empty", messages)
    assert not is_said("no Docker Engine … the bucket", messages)
