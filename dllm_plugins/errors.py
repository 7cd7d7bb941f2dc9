"""One exception hierarchy. Every message names the offending value and what mends it."""

from collections.abc import Iterator
from contextlib import contextmanager

from dllm_plugins.messages import PLAIN
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import Message


class DllmError(Exception):
    """Base class of everything this package raises on purpose.

    Its message is a text, or a :class:`~dllm_plugins.messages.Message` that hosts tell in their own words.
    """

    dialect: Dialect = PLAIN

    def __str__(self) -> str:
        return self.detail.text_for(self.dialect)

    @property
    def detail(self) -> Message:
        """What it says, before a host tells it."""
        found = self.args[0] if self.args else ""
        return found if isinstance(found, Message) else Message("{}", (found,))


@contextmanager
def calling(dialect: Dialect) -> Iterator[None]:
    """Let what is raised inside name options as a host does; the innermost host counts."""
    try:
        yield
    except DllmError as error:
        if error.dialect is PLAIN:
            error.dialect = dialect
        raise


class OptionError(DllmError, ValueError):
    """An option is unknown, out of range, or has no effect in the mode asked for."""


class RequestError(DllmError, ValueError):
    """A prompt cannot be used: empty, too long, or holding ids it must not hold."""


class PassError(DllmError, RuntimeError):
    """A request ended because a pass it took part in failed, or was broken off; what happened is the cause."""


class AnswerError(DllmError, ValueError):
    """An answer is not what was asked for, such as JSON that a schema does not allow."""


class CheckpointError(DllmError):
    """A weight file or its config is missing, damaged, or not what its family needs."""


class DownloadError(DllmError):
    """The default base model could not be fetched."""


class MissingExtraError(DllmError, ImportError):
    """An optional dependency is not installed."""


class GgufError(DllmError):
    """llama.cpp failed, or was asked for what it cannot do; what it said itself is part of the message."""


class MissingLlamaCppError(GgufError, MissingExtraError):
    """llama-cpp-python is not installed, or not in a version that we can drive."""


class JobError(DllmError):
    """A batch job cannot begin or go on: its input or options changed, its output is taken, the disk is full."""


class ServerError(DllmError):
    """A server that was to answer in place of this process does not, or ended in mid-answer."""


class PluginError(DllmError):
    """A name that no plug-in registered, or a plug-in that registered something unusable."""
