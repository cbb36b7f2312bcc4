"""What others wrote is shown, and is no command: not to a terminal, a CI system or Markdown."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from pipeline.cluster import following, records
from pipeline.cluster.outcome import Outcome
from pipeline.cluster.showing import escaped, fenced, shown
from pipeline.cluster.stages import Stage
from pipeline.cluster.state import RunState
from resprout.errors import ClusterError

EVIL = (
    "````",
    "``````` <img src=x onerror=alert(1)>",
    "::error file=a::b",
    "  ::set-output name=x::y",
    "##[error]x",
    "##vso[task.setvariable variable=a]b",
    "\x1b]0;owned\x07\x1b[2K\x1b[31mred\x1b[0m",
    "| a | b |\n\n# Heading\r\n::add-mask::a",
    "[click](https://evil.example) ![x](https://evil.example/a.png) <b>bold</b> https://evil.example @someone &lt;",
    "WWW.evil.example HTTPS://evil.example",
    "[/red] [link=https://evil.example]x[/link]",
    "\ud800 \ufffe \x00",
)
COMMAND = re.compile(r"^\s*::|##\w*\[", re.MULTILINE)
GITHUB = MarkdownIt("gfm-like", {"linkify": False}).enable("table")
anything = st.one_of(st.sampled_from(EVIL), st.text(alphabet=st.characters(), max_size=40))


def tokens(text: str) -> list[str]:
    """Every kind of element that a page of Markdown has."""
    return [it.type for block in GITHUB.parse(text) for it in [block, *(block.children or ())]]


@pytest.mark.parametrize("text", EVIL)
def test_no_line_is_a_command(text: str):
    for made in (shown(text), escaped(text), "\n".join(fenced([text]))):
        assert not COMMAND.search(made), made
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", made), made


@given(anything)
@example("a::b ##x[ ::error::")
def test_no_text_is_a_command(text: str):
    assert not COMMAND.search(shown(text))
    assert shown("running 3/8, node-1: 2.5 GiB") == "running 3/8, node-1: 2.5 GiB"


def test_no_message_is_a_command():
    error = ClusterError("KFP says: no\n::error::a", why="##[group]b", now="c")
    assert not COMMAND.search(f"{error.what}\n{error.why}")


@given(st.lists(anything, max_size=4))
def test_nothing_leaves_a_fence(lines: list[str]):
    assert tokens("\n".join([*fenced(lines), "", "after"])) == [
        "fence",
        "paragraph_open",
        "inline",
        "text",
        "paragraph_close",
    ]


@given(anything)
def test_a_cell_stays_a_cell(text: str):
    found = tokens(f"| a | b |\n|---|---|\n| {escaped(text)} | c |\n")
    assert found.count("td_open") == 2
    assert not {"link_open", "image", "html_inline", "html_block", "strong_open", "code_inline"} & set(found)
    assert not re.search(r"(?i)https?://|www\.", escaped(text))


def run(text: str) -> RunState:
    stage = Stage(name="fetch-teacher", state="failed", seconds=1.0, gpu=text, note=text)
    return RunState(run_id="1", name=text, state="FAILED", seconds=3.0, stages=(stage,))


@pytest.mark.parametrize("text", EVIL)
def test_records_hold_it_as_text(text: str):
    why = {"fetch-teacher": [text, *text.splitlines()]}
    page = records.markdown_of(run(text), why, Outcome(), "https://kfp.example/run/1")

    found = tokens(page)
    assert found.count("table_open") == 1
    assert found.count("fence") == 1
    assert found.count("link_open") == 1, "the run's own"
    assert not {"image", "html_inline", "html_block", "heading_open"} & set(found)
    ElementTree.fromstring(records.junit_of(run(text), why))


@pytest.mark.parametrize("text", EVIL)
def test_a_table_and_lines_show_it_as_text(text: str):
    console = Console(file=io.StringIO(), width=400)
    console.print(following.table_of(run(text)))
    following.PlainScreen(console).show(run(text))

    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert not COMMAND.search(printed)
    assert "\x1b" not in printed
    if "[/red]" in text:
        assert "[/red]" in printed
