"""Write the field tables of docs/recipes.md from the recipe's own docstrings: `python docs/recipe_reference.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from resprout.recipe import SECTIONS, InputSection, Recipe

PAGE = Path(__file__).with_name("recipes.md")
BEGIN, END = "<!-- fields:begin -->", "<!-- fields:end -->"

_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "object": "mapping"}


def reference() -> str:
    """Markdown: a heading per section and method, and a table of its fields."""
    parts = [_table(Recipe, skip=set(SECTIONS))]
    for name, kind in SECTIONS.items():
        parts.append(f"### `{name}`")
        choices = get_args(get_args(kind)[0]) if get_args(kind) else (kind,)
        for choice in choices:
            if "method" in choice.model_fields:
                parts.append(f"#### `method: {choice.model_fields['method'].default}`")
            parts.append(_sentence(choice.__doc__))
            parts.append(_table(choice, skip={"method"}))
    parts += ["### `teacher.input`", _sentence(InputSection.__doc__), _table(InputSection)]
    return "\n\n".join(parts) + "\n"


def page(text: str) -> str:
    """`text` with what stands between the two marks written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _table(section: type[BaseModel], skip: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    schema = section.model_json_schema()
    required = schema.get("required", [])
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        if name in skip:
            continue
        default = "**required**" if name in required else _literal(field.get("default"))
        rows.append(f"| `{name}` | {_value(field)} | {default} | {_sentence(field.get('description'))} |")
    return "\n".join(rows)


def _value(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return " or ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if choices := field.get("anyOf", field.get("oneOf")):
        return " or ".join(_value(choice) for choice in choices if choice.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {len(field['prefixItems'])}" if "prefixItems" in field else "list"
    bounds = ", ".join(text.format(field[key]) for key, text in _BOUNDS.items() if key in field)
    return f"{_TYPES[field['type']]} {bounds}".strip()


def _literal(default: Any) -> str:
    if default is None or default == [] or default == {}:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
