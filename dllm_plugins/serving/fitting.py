"""Whether what a server loads is what another process would."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from typing import TypeAlias

from dllm_plugins import plugins
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.serving.settings import Loading

#: Name, size and time of each file.
Stamp: TypeAlias = tuple[tuple[str, int, int], ...]
#: Options of loading that may be places.
_PLACES = ("base", "denoiser")


def fitting(models: Mapping[str, Loading], wanted: Loading, folder: Path) -> str | None:
    """The name under which a model is served that would be loaded just so; None if there is none.

    :param folder: where whoever asks is, and what paths begin at.
    :raises OptionError: for options that nothing is loaded with.
    """
    key = _key(wanted, folder)
    return next((name for name, loading in models.items() if _key(loading, Path.cwd()) == key), None)


def _key(loading: Loading, folder: Path) -> tuple[str, dict[str, Any]]:
    options = asdict(LoadOptions(**loading.options))
    for name in _PLACES:
        if options[name] is not None:
            options[name] = _place(options[name], folder)
    place = str(loading.place)
    return place if place in plugins.presets() else _place(place, folder), options


def _place(name: str | Path, folder: Path) -> str:
    """A path from the root where there is one, else what may be an id of the hub."""
    path = folder / Path(name).expanduser()
    return str(path.resolve()) if path.exists() else str(name)


def stamp_of(loading: Loading) -> Stamp:
    """What tells whether files of a model have changed; of those that users name."""
    found = list[tuple[str, int, int]]()
    for given in (loading.place, *(loading.options.get(name) for name in _PLACES)):
        path = None if given is None else Path(given).expanduser()
        if path is not None and path.exists():
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            facts = ((file, file.stat()) for file in files if file.is_file())
            found += [(str(file), fact.st_size, fact.st_mtime_ns) for file, fact in facts]
    return tuple(found)
