"""The blocks of docs/python.md run, one after the other, as the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"


def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("examples", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)  # what the page writes stays out of the repository
    blocks = list(re.finditer(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL))
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    for block in blocks:
        line = PAGE.read_text()[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), names)

    printed = capsys.readouterr().out
    assert "points that pruning cost" in printed
    assert "teacher.architecture: is required for mine.safetensors" in printed
    assert names["result"].recovered.mask.sparsity == pytest.approx(0.75, abs=1e-4)
    assert (tmp_path / "demo-pipeline.yaml").exists()
