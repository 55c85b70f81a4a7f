"""What all sections of the configuration share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pydantic import ValidationInfo


class Section(BaseModel):
    """What all sections share: fixed once loaded, and no key that is not known."""

    # Inputs stay out of pydantic's own texts: they may be secrets.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def not_below(cap: float, info: ValidationInfo, base_key: str) -> float:
    """The longest wait, unless the first one is longer."""
    base = info.data.get(base_key)
    if base is not None and base > cap:
        raise ValueError(f"must be at least {base_key} ({base:g})")
    return cap
