"""`type = "file"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, model_validator

from reserve_listener.config import values
from reserve_listener.config.places import look_at_file, require_room
from reserve_listener.config.section import Section
from reserve_listener.errors import ConfigError
from reserve_listener.model import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.file.sink import FileSink


class FileSettings(Section):
    """A sink that appends events to a file, one JSON object a line."""

    path: values.FilePath = Field(
        description="The file, created with mode 0640; relative to the working directory."
    )
    rotate_mb: values.Megabytes | None = Field(default=None, description="MiB at which to rotate the file.")
    rotate_every: Literal["hour", "day", "week"] | None = Field(
        default=None, description="Rotate the file every hour, day or week, in local time."
    )
    keep: values.Kept = Field(default=10, description="How many rotated files to keep.")
    compress: values.Switch = Field(default=False, description="Whether to compress rotated files (gzip).")

    @model_validator(mode="after")
    def _keep_what_is_rotated(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.rotate_mb is None and self.rotate_every is None:
            # Stated defaults are no mistake: `config show` states them.
            for key in ("keep", "compress"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"{key} has no effect without rotate_mb or rotate_every; set one of them"


class FileKind:
    """See `protocols.SinkKind`."""

    name: Final = "file"
    settings: Final = FileSettings
    writes: Final = ("path",)
    docs: Final = "appends events to a file, one JSON object a line"

    def build(self, settings: FileSettings, _secrets: Mapping[str, Any], runtime: SinkRuntime) -> FileSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.file.sink import FileSink  # noqa: PLC0415  # settings are looked at without it

        return FileSink(
            runtime.name,
            settings.path,
            rotate_bytes=None if settings.rotate_mb is None else round(settings.rotate_mb * MIB),
            rotate_every=settings.rotate_every,
            keep=settings.keep,
            compress=settings.compress,
            reserved=runtime.reserved,
        )

    def check(self, settings: FileSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> str:
        """Whether the sink can work is for the sink to say; why not is told in the words of the other findings."""
        if (problem := self.build(settings, secrets, runtime).problem()) is not None:
            look_at_file(settings.path)
            raise ConfigError(problem)
        require_room(settings.path)
        return f"{settings.path}: {'exists; events will be appended' if settings.path.exists() else 'will be created'}"


KIND: Final = FileKind()
