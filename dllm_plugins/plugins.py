"""The plug-in manager, and what the plug-ins registered, by name."""

import os
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import pluggy

from dllm_plugins import hookspecs
from dllm_plugins.errors import PluginError

if TYPE_CHECKING:
    from dllm_plugins.families.layout import Layout
    from dllm_plugins.models import Adapter
    from dllm_plugins.models import Backend
    from dllm_plugins.models import Preset
    from dllm_plugins.modes.base import Sampler
    from dllm_plugins.processes.base import NoiseProcess
    from dllm_plugins.rules.base import CommitRule
    from dllm_plugins.rules.base import RevocationRule

ENTRY_POINTS = "dllm_plugins"
BUILT_IN = "dllm_plugins.builtin"
Named = TypeVar("Named")


def _load_third_party(manager: pluggy.PluginManager) -> None:
    """Register plug-ins of other distributions; a broken one is reported and skipped.

    `DLLM_LOAD_PLUGINS`, a comma-separated list of distribution names, limits them; an
    empty value loads none.
    """
    chosen = os.environ.get("DLLM_LOAD_PLUGINS")
    wanted = None if chosen is None else {name.strip() for name in chosen.split(",")}
    for point in entry_points(group=ENTRY_POINTS):
        distribution = point.dist.name if point.dist is not None else "unknown distribution"
        if point.value == BUILT_IN or (wanted is not None and distribution not in wanted):
            continue
        try:
            manager.register(point.load(), name=f"{distribution}:{point.name}")
        except Exception as error:  # noqa: BLE001  a third party's bug must not kill the host
            warnings.warn(
                f"plug-in {point.name!r} of {distribution} failed to load and is skipped: {error!r}", stacklevel=2
            )


@cache
def manager() -> pluggy.PluginManager:
    """The plug-in manager with the built-ins and all installed plug-ins."""
    found = pluggy.PluginManager("dllm_plugins")
    found.add_hookspecs(hookspecs)
    found.register(import_module(BUILT_IN), name=BUILT_IN)
    _load_third_party(found)
    return found


def _collect(hook: str, key: Callable[[Any], str], **arguments: Any) -> dict[str, Any]:
    """Everything plug-ins return for `hook`, by name; a failing plug-in is reported and skipped.

    :raises PluginError: if two plug-ins register one name.
    """
    collected: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for implementation in getattr(manager().hook, hook).get_hookimpls():
        used = {name: arguments[name] for name in implementation.argnames}
        try:
            items: Iterable[Any] = list(implementation.function(**used))
            named = {key(item): item for item in items}
        except Exception as error:  # noqa: BLE001  a third party's bug must not kill the host
            warnings.warn(f"{hook} of plug-in {implementation.plugin_name} failed: {error!r}", stacklevel=3)
            continue
        for name, item in named.items():
            if name in collected:
                raise PluginError(
                    f"{hook}: {name!r} is registered by both {owners[name]} and {implementation.plugin_name}; "
                    f"uninstall one, or set DLLM_LOAD_PLUGINS to the distributions you want"
                )
            collected[name], owners[name] = item, implementation.plugin_name
    return collected


def _name(item: Any) -> str:
    return str(item.name)


def rules() -> "dict[str, CommitRule]":
    """Commit rules by name."""
    return _collect("register_rules", _name)


def revocations() -> "dict[str, RevocationRule]":
    """Revocation rules by name."""
    return _collect("register_revocations", _name)


def processes() -> "dict[str, NoiseProcess]":
    """Noise processes by name."""
    return _collect("register_processes", _name)


def modes() -> "dict[str, Sampler]":
    """Decoding modes by name."""
    return _collect("register_modes", _name, rules=rules(), revocations=revocations(), processes=processes())


def families() -> "dict[str, Layout]":
    """Families by name."""
    return _collect("register_families", _name)


def backends() -> "dict[str, Backend]":
    """Denoiser backends by name."""
    return _collect("register_denoisers", _name)


def presets() -> "dict[str, Preset]":
    """Named models."""
    return _collect("register_models", _name)


def adapters() -> "dict[str, Adapter]":
    """Hosts by name."""
    return _collect("register_adapters", _name)


def find(kind: str, name: str, known: Mapping[str, Named]) -> Named:
    """Look a name up.

    :raises PluginError: listing the known names.
    """
    if name not in known:
        raise PluginError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known)) or 'none'}")
    return known[name]
