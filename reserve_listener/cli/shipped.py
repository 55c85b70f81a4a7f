"""Files that come with the program: the example of a configuration, and the systemd units."""

from importlib import resources
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def shipped(name: str) -> str:
    """The text of `config.example.toml` or `systemd/…`: from the wheel, in a checkout from where it is kept."""
    packaged = resources.files("reserve_listener") / "shipped" / name
    return (packaged if packaged.is_file() else CHECKOUT / name).read_text("utf-8")
