"""The families of this package and of plug-ins, and the one a config belongs to."""

from collections.abc import Mapping

from dllm_plugins.errors import CheckpointError
from dllm_plugins.families import diffullama
from dllm_plugins.families import dream
from dllm_plugins.families import illada
from dllm_plugins.families import llada
from dllm_plugins.families import llada2
from dllm_plugins.families import llada_moe
from dllm_plugins.families import native
from dllm_plugins.families import nemotron
from dllm_plugins.families import qwen
from dllm_plugins.families import stable_diffcoder
from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import hub_name
from dllm_plugins.messages import message

#: This package's own; plug-ins may register others, which whoever opens a checkpoint hands in.
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
        stable_diffcoder.LAYOUT,
        diffullama.LAYOUT,
    )
}

#: Architectures we know of and refuse, with the reason.
REFUSED = {
    "DreamForCausalLM": "DreamReasoner has query and key norms and block-causal attention, and its own code could "
    "not be had to verify them",
    "SumiForMaskGeneration": "Sumi adds a zero logit to every attention softmax, which no class of transformers does",
    "TridaForDLM": "nothing about it could be verified",
}
#: Checkpoints that call themselves another family's, by parts of their name.
IMPOSTORS = {
    "i-dlm": message("I-DLM calls itself SDAR but is strictly causal and shifted; say {family}='idlm'"),
    "uno-qwen3": message("UNO calls itself SDAR, but was trained for another sampler"),
}
#: Families users may name that cannot be loaded.
REFUSED_FAMILIES = {
    "diffugpt": "the tensor names of its checkpoints could not be confirmed",
}


def layout_of(config: Config, origin: str, name: str | None = None, families: Mapping[str, Layout] = LAYOUTS) -> Layout:
    """The layout a config belongs to; the architecture decides, since model types collide.

    :param origin: where the config is from, for errors.
    :param name: the family, for checkpoints that look like ordinary models.
    :param families: all there are, by name.
    :raises CheckpointError: for an unknown architecture, or a family that contradicts it.
    """
    found = config.get("architectures") or []
    for part, reason in IMPOSTORS.items():
        if name is None and part in f"{hub_name(origin)} {hub_name(str(config.get('_name_or_path')))}":
            raise CheckpointError(message("{} is refused: {}", origin, reason))
    if name in REFUSED_FAMILIES:
        raise CheckpointError(f"family {name!r} is refused: {REFUSED_FAMILIES[name]}")
    if name is not None:
        return _named(found, origin, name, families)
    for architecture in found:
        for layout in families.values():
            if architecture in layout.architectures and not layout.named_only:
                return layout
        if architecture in REFUSED:
            raise CheckpointError(f"{origin} is a {architecture}, which is refused: {REFUSED[architecture]}")
    named = [layout.name for layout in families.values() if layout.architectures.intersection(found)]
    raise CheckpointError(
        message(
            "{} has architectures={!r} and model_type={!r}, which no family knows{}; known families: {}",
            origin,
            found,
            config.get("model_type"),
            message("; if it is a diffusion model, say {family}={!r}", named[0]) if named else "",
            ", ".join(sorted(families)),
        )
    )


def layout_named(name: str, families: Mapping[str, Layout] = LAYOUTS) -> Layout:
    """A family by its name.

    :raises CheckpointError: if there is none of that name.
    """
    if name not in families:
        raise CheckpointError(f"unknown family {name!r}; known families: {', '.join(sorted(families))}")
    return families[name]


def _named(found: list[str], origin: str, name: str, families: Mapping[str, Layout]) -> Layout:
    layout = layout_named(name, families)
    if not layout.architectures.intersection(found):
        raise CheckpointError(
            f"{origin} has architectures={found!r}, but family {name!r} has {sorted(layout.architectures)}"
        )
    return layout
