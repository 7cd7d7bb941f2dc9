"""All layouts, and the one a config belongs to."""

from dllm_plugins.errors import CheckpointError
from dllm_plugins.families import dream
from dllm_plugins.families import illada
from dllm_plugins.families import llada
from dllm_plugins.families import llada2
from dllm_plugins.families import llada_moe
from dllm_plugins.families import native
from dllm_plugins.families import nemotron
from dllm_plugins.families import qwen
from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout

LAYOUTS = {
    layout.name: layout
    for layout in (
        llada.LAYOUT,
        illada.LAYOUT,
        llada_moe.LAYOUT,
        llada2.LAYOUT,
        dream.LAYOUT,
        *qwen.LAYOUTS,
        nemotron.LAYOUT,
        *native.LAYOUTS,
    )
}

#: Architectures we know of and refuse, with the reason.
REFUSED = {
    "DreamForCausalLM": "DreamReasoner has query and key norms and block-causal attention, and no case verifies it",
    "TridaForDLM": "nothing about it could be verified",
}


def layout_of(config: Config, origin: str, name: str | None = None) -> Layout:
    """The layout a config belongs to; the architecture decides, since model types collide.

    :param origin: where the config is from, for errors.
    :param name: the family, for checkpoints that look like ordinary models.
    :raises CheckpointError: for an unknown architecture, or a family that contradicts it.
    """
    found = config.get("architectures") or []
    if name is not None:
        return _named(found, origin, name)
    for architecture in found:
        if architecture in REFUSED:
            raise CheckpointError(f"{origin} is a {architecture}, which is refused: {REFUSED[architecture]}")
        for layout in LAYOUTS.values():
            if architecture in layout.architectures and not layout.named_only:
                return layout
    named = [layout.name for layout in LAYOUTS.values() if layout.architectures.intersection(found)]
    hint = f"; if it is a diffusion model, say family={named[0]!r}" if named else ""
    raise CheckpointError(
        f"{origin} has architectures={found!r} and model_type={config.get('model_type')!r}, which no family "
        f"knows{hint}; known families: {', '.join(sorted(LAYOUTS))}"
    )


def _named(found: list[str], origin: str, name: str) -> Layout:
    layout = LAYOUTS.get(name)
    if layout is None:
        raise CheckpointError(f"unknown family {name!r}; known families: {', '.join(sorted(LAYOUTS))}")
    if not layout.architectures.intersection(found):
        raise CheckpointError(
            f"{origin} has architectures={found!r}, but family {name!r} has {sorted(layout.architectures)}"
        )
    return layout
