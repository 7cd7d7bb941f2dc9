"""What can be plugged in. Every hook is described, with an example, in docs/plugins.md."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from dllm_plugins.families.layout import Layout
    from dllm_plugins.models import Adapter
    from dllm_plugins.models import Backend
    from dllm_plugins.models import Preset
    from dllm_plugins.modes.base import Sampler
    from dllm_plugins.processes.base import NoiseProcess
    from dllm_plugins.rules.base import CommitRule
    from dllm_plugins.rules.base import RevocationRule

hookspec = pluggy.HookspecMarker("dllm_plugins")
hookimpl = pluggy.HookimplMarker("dllm_plugins")


@hookspec
def register_families() -> Iterable[Layout]:
    """Kinds of checkpoint, each as the layout that `load_model` and the Auto classes read it by."""
    return ()


@hookspec
def register_processes() -> Iterable[NoiseProcess]:
    """Noise processes."""
    return ()


@hookspec
def register_rules() -> Iterable[CommitRule]:
    """Commit rules, for mode `diffusion`."""
    return ()


@hookspec
def register_revocations() -> Iterable[RevocationRule]:
    """Rules that reopen committed tokens, beside a commit rule."""
    return ()


@hookspec
def register_modes(
    rules: Mapping[str, CommitRule],
    revocations: Mapping[str, RevocationRule],
    processes: Mapping[str, NoiseProcess],
) -> Iterable[Sampler]:
    """Decoding modes, each a program. An implementation names those arguments that it wants."""
    return ()


@hookspec
def register_denoisers() -> Iterable[Backend]:
    """Backends that run a model's forward."""
    return ()


@hookspec
def register_models() -> Iterable[Preset]:
    """Named models, such as the default `dllm`."""
    return ()


@hookspec
def register_adapters() -> Iterable[Adapter]:
    """Hosts this package can be used from."""
    return ()
