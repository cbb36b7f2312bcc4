"""Write docs/ui.md's table of inputs from pipeline/compress.yaml: `python docs/inputs_reference.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

COMPILED = Path(__file__).parents[1] / "pipeline" / "compress.yaml"
PAGE = Path(__file__).with_name("ui.md")
BEGIN, END = "<!-- inputs:begin -->", "<!-- inputs:end -->"

# as the KFP UI calls the types in its form
_TYPES = {"STRUCT": "dict", "STRING": "string", "NUMBER_INTEGER": "integer"}


def reference(spec: Mapping[str, Any]) -> str:
    """Markdown: every input as the form labels it and in its order, its default, what it means."""
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for name, given in sorted(inputs.items()):
        meaning = given["description"].replace("|", "\\|")
        rows.append(f"| `{name} - {_TYPES[given['parameterType']]}` | {_default(given['defaultValue'])} | {meaning} |")
    return "\n".join(rows) + "\n"


def page(text: str, spec: Mapping[str, Any]) -> str:
    """`text` with what stands between the two marks written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference(spec)}{END}{after}"


def _default(value: Any) -> str:
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`" if value else "empty"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), next(yaml.safe_load_all(COMPILED.read_text()))))
