"""The command `serve` of `python -m dllm_plugins`, and what `llm dllm serve` does likewise."""

import re
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import click

from dllm_plugins.commands.info import DEFAULT
from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.errors import calling
from dllm_plugins.libraries.extras import need
from dllm_plugins.messages import Dialect

if TYPE_CHECKING:
    from dllm_plugins.serving.settings import Loading

    _Kind = click.ParamType[float]
else:
    # Older versions of click have no parameter here.
    _Kind = click.ParamType

_FLAGS = Dialect({"host": "--host", "api_key_file": "--api-key-file", "without_key": "--without-key"})
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Scaled(_Kind):
    """A number with a unit behind it."""

    def __init__(self, name: str, units: Mapping[str, int], example: str) -> None:
        self.name = name
        self._units = units
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number in the smallest unit."""
        if isinstance(value, int | float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]?)B?", value)
        unit = None if found is None else next((u for u in self._units if u.lower() == found[2].lower()), None)
        if found is None or unit is None:
            self.fail(f"{value!r} is no {self.name}; write it like {self._example}", param, ctx)
        return float(found[1]) * self._units[unit]


_TIME, _SIZE = _Scaled("time", _UNITS, "90s, 10m or 1h"), _Scaled("size", _BYTES, "512M or 8G")

HELP = """Serve models to every client of OpenAI's interface.

Each --model is loaded when it is asked for first. Keys are read from --api-key-file, one a line, or from DLLM_API_KEY;
without one, only this machine is answered. With DLLM_SERVER=auto in their environment, llm and LangChain of this user
use what is loaded here.
"""
OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-m", "--model", "models", multiple=True, default=(DEFAULT,), show_default=True, help="One to serve."),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at."),
    click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one."),
    click.option(
        "--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Keys, one a line."
    ),
    click.option("--without-key", is_flag=True, help="Answer other machines although there is no key."),
    click.option("--rows", default=32, show_default=True, help="Most answers that a model writes at once."),
    click.option("--queue", default=256, show_default=True, help="Most that wait; then clients are told to come back."),
    click.option("--kv-memory", type=_SIZE, help="For keys and values of a model; requests wait until theirs fit."),
    click.option("--slice", default=256, show_default=True, help="Most tokens of a prompt that a pass reads."),
    click.option("--max-prompt", type=int, help="Most tokens of a prompt."),
    click.option("--max-body", default="4M", show_default=True, type=_SIZE, help="Most bytes of a request."),
    click.option("--memory", type=_SIZE, help="For weights of loaded models; one that is unused makes room."),
    click.option("--keep-alive", type=_TIME, help="Drop a model that was unused for so long."),
    click.option("--grace", default="30s", show_default=True, type=_TIME, help="For running answers at the end."),
)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(help=HELP)
@with_options
@click.option("--load", "load", multiple=True, type=(str, str), help="Option of load_model for all: NAME VALUE.")
def serve(load: tuple[tuple[str, str], ...], **given: Any) -> None:
    """See :data:`HELP`."""
    with clean_errors():
        need("fastapi", "`serve`")
        from dllm_plugins.serving.settings import Loading

        run(given, lambda name: Loading(name, dict(load)))


def run(given: Mapping[str, Any], loading: "Callable[[str], Loading]") -> None:
    """Serve until the process is told to end.

    :param given: values of :data:`OPTIONS`.
    :param loading: what a name that users give is to be loaded as.
    :raises OptionError: for a host that others reach without a key.
    """
    need("uvicorn", "`serve`")
    need("prometheus_client", "`serve`")
    from dllm_plugins.serving.guard import with_keys
    from dllm_plugins.serving.run import run_server
    from dllm_plugins.serving.settings import ServerSettings

    settings = ServerSettings(
        models={name: loading(name) for name in given["models"]},
        host=given["host"],
        rows=given["rows"],
        waiting=given["queue"],
        kv_memory=None if given["kv_memory"] is None else int(given["kv_memory"]),
        slice=given["slice"],
        prompt=given["max_prompt"],
        body=int(given["max_body"]),
        idle=given["keep_alive"],
        memory=None if given["memory"] is None else int(given["memory"]),
        grace=given["grace"],
    )
    with calling(_FLAGS):
        settings = with_keys(settings, given["api_key_file"], given["without_key"])
    run_server(settings, given["port"], lambda line: click.echo(line, err=True))
