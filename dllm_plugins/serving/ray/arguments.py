"""What the application is told: `NAME=VALUE` of `serve run`, or `args` of a config file."""

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import get_type_hints

from pydantic import TypeAdapter
from pydantic import ValidationError

from dllm_plugins.errors import OptionError
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings

#: What replicas that are running take on at once.
BOUNDS = ("rows", "waiting", "kv_memory", "slice", "prompt", "idle", "memory")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    :param api_key_file: with keys, one a line, on every machine with an ingress; None for those in `DLLM_API_KEY`.
    :param without_key: others are answered although there is no key.
    """

    api_key_file: Path | None = None
    without_key: bool = False


@dataclass(frozen=True, slots=True)
class Placing:
    """What Ray gives the application; a config file can say all of it of each deployment, too.

    :param replicas: how many servers there are.
    :param cpus: processors of each, and so its threads.
    :param gpus: devices of each.
    """

    replicas: int = 1
    cpus: float = 1
    gpus: float = 0
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise OptionError(f"replicas={self.replicas}: give a number above 0")


_OF_SETTINGS = {name: hint for name, hint in get_type_hints(ServerSettings).items() if name not in ("models", "keys")}
_OF_MODELS = {"models": str | list[str] | dict[str, dict[str, Any] | None]}
_OF_ACCESS, _OF_PLACING = get_type_hints(Access), {"replicas": int, "cpus": float, "gpus": float}


def settings_of(given: Mapping[str, Any]) -> ServerSettings:
    """The settings of every server.

    :param given: `models`, and fields of :class:`~dllm_plugins.serving.settings.ServerSettings` but for its keys.
        Models are names with commas between, a list of names, or a mapping from names to options of `load_model`, in
        which `place` says what is loaded if it is not the name.
    :raises OptionError: for an argument that there is not, or a value out of range.
    """
    _check(given, {*_OF_MODELS, *_OF_SETTINGS, *_OF_ACCESS, *_OF_PLACING})
    models = _read({"models": "dllm", **given}, _OF_MODELS)["models"]
    return ServerSettings(_loadings(models), **_read(given, _OF_SETTINGS))


def placing_of(given: Mapping[str, Any]) -> Placing:
    """Where the servers are, and who may ask them.

    :param given: fields of :class:`Placing` and of :class:`Access`.
    :raises OptionError: for a value out of range.
    """
    return Placing(**_read(given, _OF_PLACING), access=Access(**_read(given, _OF_ACCESS)))


def bounded(settings: ServerSettings, given: Mapping[str, Any]) -> ServerSettings:
    """Settings with other bounds.

    :param given: :data:`BOUNDS`, any of them.
    :raises OptionError: for what is none of them, or out of range.
    """
    _check(given, BOUNDS)
    return replace(settings, **_read(given, _OF_SETTINGS))


def _check(given: Mapping[str, Any], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise OptionError(f"there is no argument {name!r} here; there are: {', '.join(sorted(known))}")


def _read(given: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their types; texts, which is all that a command line has, are understood, too."""
    found = dict[str, Any]()
    for name in given.keys() & hints.keys():
        try:
            found[name] = TypeAdapter(hints[name]).validate_python(given[name])
        except ValidationError as error:
            told = " or ".join(one["msg"].lower() for one in error.errors())
            raise OptionError(f"{name}={given[name]!r}: {told}") from error
    return found


def _loadings(models: str | list[str] | dict[str, dict[str, Any] | None]) -> dict[str, Loading]:
    if isinstance(models, str):
        models = models.split(",")
    options = dict.fromkeys(models, None) if isinstance(models, list) else models
    found = dict[str, Loading]()
    for name, own in options.items():
        others = dict(own or {})
        found[name] = Loading(others.pop("place", name), others)
    return found
