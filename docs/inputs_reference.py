"""Write docs/ui.md's table of inputs from pipeline/compress.yaml: `python docs/inputs_reference.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from resprout.recipe import SECTIONS

COMPILED = Path(__file__).parents[1] / "pipeline" / "compress.yaml"
PAGE = Path(__file__).with_name("ui.md")
BEGIN, END = "<!-- inputs:begin -->", "<!-- inputs:end -->"

# as the KFP UI calls the types in its form
_TYPES = {"STRUCT": "dict", "LIST": "list", "STRING": "string", "NUMBER_INTEGER": "integer", "BOOLEAN": "boolean"}


def reference(spec: Mapping[str, Any]) -> str:
    """Markdown: every input as the form labels it, its default, what it means. The recipe's sections come first."""
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for name in [*(name for name in SECTIONS if name in inputs), *sorted(inputs.keys() - SECTIONS.keys())]:
        meaning = inputs[name]["description"].replace("|", "\\|")
        fields = f" [All fields](recipes.md#{name})." if name in SECTIONS else ""
        label = f"{name} - {_TYPES[inputs[name]['parameterType']]}"
        rows.append(f"| `{label}` | {_default(name, inputs[name]['defaultValue'])} | {meaning}{fields} |")
    return "\n".join(rows) + "\n"


def page(text: str, spec: Mapping[str, Any]) -> str:
    """`text` with what stands between the two marks written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference(spec)}{END}{after}"


def _default(name: str, value: Any) -> str:
    if name == "teacher":
        return f"`{value['source']}`"
    if name in SECTIONS and value:
        return "the section's own, spelled out"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`" if value else "empty"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), next(yaml.safe_load_all(COMPILED.read_text()))))
