"""What a server is told: which models, who may ask, and how much at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from ipaddress import ip_address
from typing import Any

from dllm_plugins.errors import OptionError

#: Numbers that must be above zero where they are given.
_ABOVE_ZERO = ("rows", "waiting", "kv_memory", "slice", "prompt", "body", "idle", "memory")


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model is loaded: what :func:`~dllm_plugins.models.load_model` is asked for."""

    place: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server serves, and its bounds.

    :param models: by the names that clients call them.
    :param host: where it listens; without a key it answers only to that name and to this machine's own.
    :param keys: any of them opens the server; without one, everybody is let in.
    :param rows: most answers that a model writes at once.
    :param waiting: most answers that wait for their turn; beyond, requests are turned away.
    :param kv_memory: bytes that keys and values of a model may take, those of its rows and of kept prefixes; None for
        no bound but that of `rows`.
    :param slice: most tokens of a prompt that a pass forwards, so that others need not wait for a long one.
    :param prompt: most tokens of a prompt; None for what the model's context holds.
    :param body: most bytes of a request.
    :param idle: seconds after which a model that nobody uses is dropped; None keeps it.
    :param memory: bytes that the weights of loaded models may take together; a model that nobody uses makes room for
        another one, and one that is larger is refused.
    :param grace: seconds that answers under way are given when the server is stopped.
    :raises OptionError: for a number that is none of these.
    """

    models: Mapping[str, Loading]
    host: str = "127.0.0.1"
    keys: frozenset[str] = frozenset()
    rows: int = 32
    waiting: int = 256
    kv_memory: int | None = None
    slice: int = 256
    prompt: int | None = None
    body: int = 4 << 20
    idle: float | None = None
    memory: int | None = None
    grace: float = 30.0

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OptionError(f"{name}={value}: give a number above 0")
        if self.grace < 0:
            raise OptionError(f"grace={self.grace}: give a number of seconds, 0 or more")
        if not self.models:
            raise OptionError("there is no model to serve; name one")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
