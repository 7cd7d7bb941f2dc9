"""What the trained folders are loaded as: SDAR where there are blocks, A2D where a masked word's own row predicts it,
else families that only these recipes write.

They are registered by a plug-in, as anybody's would be: one body, causal, bidirectional and shifted as Dream is, or
with uniform noise.
"""

from functools import partial
from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.hookspecs import hookimpl
from dllm_plugins.libraries.classes import always
from dllm_plugins.plugins import manager

#: What config.json says of each kind.
KINDS: dict[str, dict[str, Any]] = {
    "causal": {"architectures": ["PlainCausalQwen3"], "model_type": "plain_causal"},
    "masked": {"architectures": ["PlainMaskedQwen3"], "model_type": "plain_masked"},
    "unshifted": {"architectures": ["A2DQwen3LMHeadModel"], "model_type": "a2d-qwen3", "dllm_preset": "mdlm"},
    "blocks": {"architectures": ["SDARForCausalLM"], "model_type": "sdar"},
    "uniform": {"architectures": ["PlainUniformQwen3"], "model_type": "plain_uniform"},
}
_NAME = "dllm-reasoning"


def _config(name: str, original: Config) -> dict[str, Any]:
    return common_config(original, name)


def _layout(kind: str, **more: Any) -> Layout:
    said = KINDS[kind]
    name = said["model_type"]
    return Layout(
        name=name,
        architectures=frozenset(said["architectures"]),
        model_types=frozenset({name}),
        native=always("Qwen3ForCausalLM"),
        classes="Qwen3",
        config=partial(_config, name),
        checkpoints=(),
        licence="Apache-2.0",
        verified="transformers' own class",
        **more,
    )


class ReasoningFamilies:
    """The plug-in."""

    @hookimpl
    def register_families(self) -> list[Layout]:
        """All three."""
        return [
            _layout("masked", attention="bidirectional", shifted=True, modes={"diffusion": "scheduled"}),
            _layout("causal", attention="causal", shifted=True, modes={"diffusion": "ar", "ar": "ar"}),
            _layout(
                "uniform",
                attention="causal context, bidirectional block",
                shifted=False,
                modes={"diffusion": "flow_uniform"},
                noise="uniform",
            ),
        ]


def register() -> None:
    """Let this process load the folders of these recipes."""
    if not manager().has_plugin(_NAME):
        manager().register(ReasoningFamilies(), name=_NAME)
