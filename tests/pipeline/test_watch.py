"""What a person sees: lines, bars, and why something failed."""

from __future__ import annotations

import io
import re
import traceback
from pathlib import Path

import pytest
from rich.console import Console

import components
from pipeline.local_kfp import Task
from pipeline.watch import STAGES, BarScreen, PlainScreen, Watch, describe, failure, screen_for
from resprout.errors import ArtifactError
from resprout.progress import Progress, print_notes


def progress(done: int) -> Progress:
    return Progress("dreams", done, 200, "iterations", {"bn": 0.41234, "agreement": 0.961})


def test_plain_lines_come_once_per_tenth():
    out = io.StringIO()
    screen = PlainScreen(Console(file=out))
    screen.begin("dreams")
    for done in range(201):
        screen.advance(progress(done))

    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{20 * tenth}/200" for tenth in range(1, 11)]
    assert lines[0] == "dreams       20/200 iterations  bn 0.412  agreement 96.1 %"


def test_each_stage_has_tenths_of_its_own():
    out = io.StringIO()
    screen = PlainScreen(Console(file=out))
    for _ in range(2):
        screen.begin("dreams")
        screen.advance(progress(100))

    assert len(out.getvalue().splitlines()) == 2


@pytest.mark.parametrize("bars", [False, True])
def test_why_a_stage_waits_for_storage_is_seen_while_it_waits(bars: bool, tmp_path: Path):
    out = io.StringIO()
    screen = BarScreen(terminal(out)) if bars else PlainScreen(Console(file=out))
    with (tmp_path / "log.txt").open("w") as log:
        watch, task = Watch(screen, log), Task("synthesize", {}, tmp_path)
        watch.started(task)
        said = "storage: PUT /b/k has failed for 13 s (HTTP 500, http://store:9000); it is tried again"
        watch.said(task, f"[KFP Executor 2026-11-28 02:00:00,123 WARNING]: {said}")
        watch.said(task, f"see docs/storage.md {said[:7]}and its table")
        watch.said(task, progress(200).line())
    if isinstance(screen, BarScreen):
        screen._bars.refresh()
    screen.close()

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert shown.count("storage") == 1
    assert said in shown.replace("\n", " ")
    assert "KFP Executor" not in shown
    assert "200/200" in shown, "the stage goes on"
    assert said in (tmp_path / "log.txt").read_text()


def test_what_a_stage_chose_stands_under_its_line_once(capsys: pytest.CaptureFixture[str]):
    out = io.StringIO()
    watch, task = Watch(PlainScreen(Console(file=out)), io.StringIO()), Task("evaluate")
    print_notes(["took classes by name", "passed over 3 files"])
    said = ["a note: of no stage", *capsys.readouterr().out.splitlines()]
    for lines in (said, []):
        watch.started(task)
        for line in lines:
            watch.said(task, line)
        watch.ended(task, 0)

    first, *notes, second = out.getvalue().splitlines()
    assert first.startswith("evaluation ")
    assert notes == [" " * 13 + "took classes by name", " " * 13 + "passed over 3 files"]
    assert second.startswith("evaluation ")


def terminal(out: io.StringIO) -> Console:
    return Console(file=out, force_terminal=True, width=90, color_system=None)


def test_a_stages_second_kind_of_work_has_tenths_of_its_own():
    out = io.StringIO()
    screen = PlainScreen(Console(file=out))
    screen.begin("recovery")
    for done, unit in ((1, "layers"), (2, "layers"), (0, "epochs"), (1, "epochs"), (2, "epochs")):
        screen.advance(Progress("recovery", done, 2, unit))
    assert [line.split()[1:] for line in out.getvalue().splitlines()] == [
        ["1/2", "layers"],
        ["2/2", "layers"],
        ["1/2", "epochs"],
        ["2/2", "epochs"],
    ]


def test_a_bar_shows_the_stage_at_work_and_leaves_only_its_line():
    out = io.StringIO()
    screen = BarScreen(terminal(out))
    screen.begin("dreams")
    screen.advance(progress(100))
    screen._bars.refresh()
    at_work = out.getvalue()
    screen.line("dreams       1,024 images", "71 s")
    screen.close()

    assert "100/200 iterations  bn 0.412  agreement 96.1 %" in at_work
    assert "━" in at_work
    (kept,) = [line for line in re.sub(r"\x1b\[[0-9;?]*\w", "", out.getvalue()).splitlines() if "1,024" in line]
    assert kept.endswith(" 71 s")
    assert len(kept) == 90


def test_bars_are_for_terminals():
    assert isinstance(screen_for(terminal(io.StringIO()), plain=False), BarScreen)
    assert isinstance(screen_for(terminal(io.StringIO()), plain=True), PlainScreen)
    assert isinstance(screen_for(Console(file=io.StringIO()), plain=False), PlainScreen)


def raised(error: Exception) -> list[str]:
    """What Python writes when a program ends with it."""
    try:
        raise error
    except Exception as caught:
        return ["something before", *"".join(traceback.format_exception(caught)).splitlines()]


@pytest.mark.parametrize(
    "error",
    [
        ArtifactError("it is broken", why="it was cut", now="make it again"),
        ArtifactError("first problem\nsecond problem"),
        ArtifactError("resprout.errors.Odd: text", now="go on"),
    ],
)
def test_an_error_of_ours_is_told_as_it_was_raised(error: ArtifactError):
    found = failure("dreams", 1, raised(error))

    assert found.message == str(error)
    assert found.traceback.startswith("Traceback (most recent call last)")


def test_any_other_error_is_told_as_a_mistake_of_ours():
    found = failure("dreams", 1, raised(ZeroDivisionError("by nothing")))

    assert found.message.startswith("dreams failed: ZeroDivisionError: by nothing\n  why: ")
    assert "\n  now: " in found.message


def test_a_task_that_was_killed_says_by_what():
    assert failure("recovery", -9, ["progress recovery 1/2 epochs"]).message.startswith(
        "recovery was killed by signal 9"
    )


def test_a_watch_logs_all_lines_and_keeps_progress_out_of_failures():
    out, log = io.StringIO(), io.StringIO()
    watch = Watch(PlainScreen(Console(file=out)), log)
    task = Task("synthesize")
    watch.started(task)
    for line in ["a warning", "progress dreams 100/200 iterations bn=0.4", *raised(ArtifactError("broken"))]:
        watch.said(task, line)
    watch.ended(task, 1)

    assert watch.failure is not None
    assert watch.failure.message == "broken"
    assert out.getvalue() == "dreams       100/200 iterations  bn 0.4\n"
    assert "dreams: a warning\n" in log.getvalue()
    assert "dreams: progress dreams 100/200" in log.getvalue()


def test_every_stage_is_called_by_a_persons_word_for_it():
    components_there = {path.stem for path in Path(components.__file__).parent.glob("[a-z]*.py")}
    assert set(STAGES) == components_there


@pytest.mark.parametrize(("rounds", "ends"), [(1, "weights, lamp"), (3, "weights, lamp, rounds: 3")])
def test_rounds_are_told_where_there_are_several(rounds: int, ends: str):
    facts = {"sparsity_percent": 75.0, "maskable_weights": 1000, "method": "lamp", "rounds": rounds}
    assert describe("prune", facts) == f"75.0 % of 1,000 {ends}"


def test_where_nothing_is_published_nothing_is_said_of_it():
    assert describe("publish", {"display_name": "not published"}) == ""
    assert describe("publish", {"files": 6, "address": "s3://models/a/1"}) == "6 files to s3://models/a/1"


@pytest.mark.parametrize(("epoch", "told"), [(41.0, "epoch 41 is kept"), (0.0, "no epoch is kept")])
def test_a_recovery_ends_with_the_figures_of_what_was_kept_and_its_name(epoch: float, told: str):
    facts = {"held_out_kl": 0.012, "agreement": 0.961, "kept_epoch": epoch, "sparsity": "75.0 %"}
    assert describe("recover", facts) == f"{told}  held_out_kl 0.012  agreement 96.1 %"


def test_what_a_stage_says_commands_no_terminal(capsys: pytest.CaptureFixture[str]):
    out, log = io.StringIO(), io.StringIO()
    watch, task = Watch(PlainScreen(Console(file=out)), log), Task("evaluate")
    print_notes(["took \x1b]0;owned\x07\x1b[2K\u202e\nresprout.errors.ArtifactError: as one's own"])
    watch.started(task)
    for line in [*capsys.readouterr().out.splitlines(), "a library's: \x9b31m\x1b[2K"]:
        watch.said(task, line)
    watch.ended(task, 0)

    for shown in (out.getvalue(), log.getvalue()):
        assert all(it.isprintable() for it in shown.replace("\n", ""))
        assert r"took \x1b]0;owned" in shown
    assert "\nresprout.errors" not in log.getvalue()


def test_what_an_error_quotes_commands_no_terminal():
    text = str(ArtifactError("in \x1b[2K\x9b", why="\u202e", now="two\nlines\tand \ud800, Zürich and \u200d"))
    assert text == "in \\x1b[2K\\x9b\n  why: \\u202e\n  now: two\nlines\tand \\ud800, Zürich and \u200d"
