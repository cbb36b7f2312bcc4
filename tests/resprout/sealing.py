"""Manifests as someone writes them who knows how they are sealed, and keeps to no rule but that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def sealed(fields: Any) -> str:
    """A manifest's text; of what is no mapping, the text alone."""
    if not isinstance(fields, dict):
        return _text(fields)
    rest = {name: value for name, value in fields.items() if name != "manifest_sha256"}
    return _text({**rest, "manifest_sha256": hashlib.sha256(_text(rest).encode()).hexdigest()})


def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest of an artifact's folder, and seal it again."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(sealed(fields))


def _text(fields: Any) -> str:
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"
