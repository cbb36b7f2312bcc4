"""What `make` says before anything is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from resprout.recipe.form import KINDS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target(checkout: Path):
    listed = make(cwd=checkout)

    (phony,) = re.findall(r"^\.PHONY: (.*)$", (checkout / "Makefile").read_text(), flags=re.MULTILINE)
    assert listed.returncode == 0
    assert re.findall(r"^  make (\S+)", listed.stdout, flags=re.MULTILINE) == phony.split()
    assert not (checkout / ".venv").exists()


def test_every_pipeline_that_there_is_is_compiled_and_compared():
    (compiled,) = re.findall(r"^COMPILED := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert compiled.split() == list(KINDS)
    assert {path.stem for path in (ROOT / "pipeline").glob("*.yaml")} == set(KINDS)


def test_a_python_that_is_too_old_is_refused_with_the_remedy(checkout: Path):
    old = checkout / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)

    refused = make("test", f"PYTHON={old}", cwd=checkout)

    assert refused.returncode != 0
    assert "needs Python 3.10 or newer" in refused.stdout
    assert "Python 3.9.2" in refused.stdout
    assert "now: " in refused.stdout
    assert not (checkout / ".venv").exists()
