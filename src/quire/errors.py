"""Errors that users see. Knows nothing about the rest of Quire.

A wrong value is a plain ``ValueError`` that names the value, the limit and the remedy; the classes
here exist where a caller must tell one failure from another.
"""


class QuireError(Exception):
    """Base of the errors that are not plain ``ValueError``."""


class ModelLoadError(QuireError, ValueError):
    """A checkpoint, config or tokenizer is unusable; the message names the file and the remedy."""


class UnsupportedModelError(ModelLoadError):
    """The architecture or one of its config keys is not supported; the message names it."""


class OutOfMemoryError(QuireError, ValueError):
    """The model or its KV cache does not fit; the message gives the numbers and the remedy."""


class EngineDeadError(QuireError, RuntimeError):
    """The engine stopped; the message carries the root cause as its last line."""


class RequestError(QuireError, ValueError):
    """One request cannot be served; other requests are not affected."""


class PluginError(QuireError, RuntimeError):
    """An installed plug-in could not be loaded; the message names it and its package."""
