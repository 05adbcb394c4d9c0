"""The one tree of errors. Every message names what was read, where, what was found and what is expected."""

from __future__ import annotations


class ClarionError(Exception):
    """Root of everything that Clarion raises on purpose."""


class FileError(ClarionError):
    """A model file cannot be read or written: missing, truncated, no space, changed while in use."""


class NameNotFoundError(FileError):
    """There is no model of this name. The message holds names that are near, and what fetches the model."""


class FormatError(FileError):
    """A file breaks the format's rules. The message holds file, offset, field, found and expected."""


class UnsupportedError(ClarionError):
    """A valid input asks for something that this version does not implement."""


class ModelError(ClarionError):
    """Hyperparameters or tensors contradict each other or the model family."""


class TokenizerError(ClarionError):
    """A vocabulary cannot be built, or text or ids do not fit it."""


class TemplateError(ClarionError):
    """A chat template is malformed, forbidden, or exceeded its time or output limit."""


class PlanError(ClarionError):
    """A plan violates a rule of its verifier."""


class ContextError(ClarionError):
    """A sequence does not fit into the context. The message names both lengths."""


class ParameterError(ClarionError, ValueError):
    """An argument is out of range or of the wrong kind."""


class DeviceError(ClarionError):
    """The processor or the machine lacks what was asked for."""


class CancelledError(ClarionError):
    """Generation was cancelled by its caller."""


class ClosedError(ClarionError):
    """The model was used after `close`."""


class PicklingError(ClarionError, TypeError):
    """What lives in one process, with its threads and its memory, cannot be pickled or copied."""


class ServerError(ClarionError):
    """A server refused a request, failed, or gave an answer that cannot be read.

    Attributes:
        status: of HTTP, where there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(ServerError):
    """Nobody answers at an address, or not in time, or the connection broke in the middle of an answer."""


class AccessError(ServerError):
    """A server asks for a key, does not know the one it was given, or lets this caller not in."""


class OverloadedError(ServerError):
    """A server takes no requests now: it has as many as it can take, or it ends."""
