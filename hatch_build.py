"""The README as it stands in the package's metadata, where links to files of the repository lead nowhere."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_IMAGE = re.compile(r"^!\[[^\]]+\]\((?!https?://)[^)]+\)\n\n?", re.MULTILINE)
RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)([^)]+)\)")


def without_relative_links(text: str) -> str:
    """The text, each link to a file of the repository as the file's name, and without the pictures that are there."""
    text = RELATIVE_IMAGE.sub("", text)
    return RELATIVE_LINK.sub(lambda link: link[1] if link[2] in link[1] else f"{link[1]} (`{link[2]}`)", text)


class ReadmeHook(MetadataHookInterface):
    """Hatchling finds it by `tool.hatch.metadata.hooks.custom`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the README in."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": without_relative_links(text)}
