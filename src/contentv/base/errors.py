"""The exception tree: the class decides the exit code, the message is one line for a person."""


class ContentVError(Exception):
    """Anything reported on purpose; the message says what, by which rule, and the way out."""

    exit_code: int = 1


class UserError(ContentVError, ValueError):
    """A request that cannot be carried out as written; the person changes the request."""

    exit_code = 2


class WorldError(ContentVError):
    """The outside world failed: disk, network, memory, a corrupt file. The request may be fine."""


class MediaError(WorldError):
    """A video or picture of a stranger cannot be used.

    `cause` is its class: corrupt, unsupported, unreadable, timeout, oom or crash.
    """

    def __init__(self, message: str, cause: str = "corrupt") -> None:
        super().__init__(message)
        self.cause = cause


class ModelFilesError(WorldError):
    """A model folder lacks a file, or a file in it is truncated, corrupt or of another model."""


class NumericsError(WorldError):
    """A computation produced NaN, infinity or an all-black picture where it must not."""
