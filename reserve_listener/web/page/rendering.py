"""HTML out of templates.

What must stay true: whatever a template shows is escaped for HTML (autoescape), and control and bidi characters in it are
made visible (`finalize`), both at this one place. Nothing is inline but SVG made of attributes.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from reserve_listener.text import page_of, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE: Final = files("reserve_listener.web.page")

ASSETS: Final = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def asset(name: str) -> bytes:
    """A style, script or picture of ours."""
    return PACKAGE.joinpath("assets", name).read_bytes()


class _Environment(Environment):
    """`words.clear` is the word, not what every dictionary can do."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What `obj.attribute` means in a template."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


@functools.cache
def templates() -> Templates:
    """The process's. Call it in a thread at first: compiling them takes a quarter of a second."""
    return Templates()


class Templates:
    """All templates, compiled when this is made: before anybody asks."""

    def __init__(self) -> None:
        self.environment = _Environment(
            autoescape=True,
            finalize=_safe,
            loader=FunctionLoader(_source),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
            auto_reload=False,
        )
        self.environment.globals["asset_url"] = _asset_urls().__getitem__
        self.environment.globals["scope_url"] = page_of
        for one in PACKAGE.joinpath("templates").iterdir():
            self.environment.get_template(one.name)

    def render(self, template: str, values: Mapping[str, Any]) -> bytes:
        """A page."""
        return self.environment.get_template(f"{template}.html").render(values).encode()


def _safe(value: Any) -> Any:
    """What is shown: a plain text is foreign."""
    return visible(value) if type(value) is str else value


def _source(name: str) -> str:
    return PACKAGE.joinpath("templates", name).read_text()


def _asset_urls() -> dict[str, str]:
    """With the content in the name, so that browsers may keep them."""
    return {name: f"/assets/{name}?{hashlib.sha256(asset(name)).hexdigest()[:12]}" for name in ASSETS}
