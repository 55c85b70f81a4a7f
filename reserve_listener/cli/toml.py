"""Values as TOML writes them."""

import json
from typing import Any


def toml_value(value: Any) -> str:
    """One value, on one line."""
    if isinstance(value, str):
        # A string of JSON is one of TOML but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{toml_value(key)} = {toml_value(each)}" for key, each in value.items())
        return f"{{ {pairs} }}"
    return str(int(value) if value == int(value) else value)
