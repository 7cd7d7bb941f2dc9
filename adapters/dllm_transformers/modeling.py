"""The tri-mode model as a transformers class: Auto classes and `pipeline` sample by diffusion.

A folder in the hub's format with `model_type` "dllm_tri_mode" holds the unchanged base
under its own names and our denoiser under `denoiser.`; nothing in it is run as code.
`forward` is the base's, one causal row per token; `generate` is ours.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import LlamaForCausalLM

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.reading import reading
from dllm_plugins.reading import regular
from dllm_transformers.generate import generate
from dllm_transformers.hub import write_custom_generate
from dllm_transformers.tri_mode import MODEL_TYPE
from dllm_transformers.tri_mode import TriModeConfig
from dllm_transformers.tri_mode import TriModeDenoiser


class TriModeForCausalLM(LlamaForCausalLM):
    """Samples by block diffusion wherever transformers calls `generate`."""

    config_class = TriModeConfig

    def __init__(self, config: TriModeConfig) -> None:
        super().__init__(config)
        self.denoiser = TriModeDenoiser(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """As in transformers, but nothing that is missing is made up.

        :raises CheckpointError: for files that are missing or damaged, and weights that the config contradicts.
        """
        name = pretrained_model_name_or_path
        with reading(name):
            if name is not None and Path(name).is_dir():
                _check_layers(Path(name), kwargs.get("config") or TriModeConfig.from_pretrained(name))
            found: Any = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        model, report = found
        for kind in ("missing_keys", "unexpected_keys"):
            if name is not None and report[kind]:
                raise CheckpointError(f"{name}: {kind.replace('_', ' ')} {sorted(report[kind])[:3]}; export it again")
        return (model, report) if output_loading_info else model

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """See :func:`dllm_transformers.generate`; `custom_generate="..."` still loads another strategy."""
        if kwargs.get("custom_generate") is not None:
            return super().generate(*args, **kwargs)
        kwargs.pop("custom_generate", None)
        return generate(self, *args, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Like every model's; the folder also gets `custom_generate/`, for users without our classes.

        :raises OptionError: for push_to_hub, which would upload the folder half made.
        """
        if kwargs.get("push_to_hub"):
            raise OptionError("push_to_hub=True uploads before the folder is complete; save it, then `hf upload` it")
        super().save_pretrained(save_directory, *args, **kwargs)
        place = Path(save_directory) / "config.json"
        config = json.loads(place.read_text(encoding="utf-8"))
        # `transformers serve` looks the first name up in transformers itself, where our class is not.
        config["architectures"] = ["AutoModelForCausalLM"]
        place.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_custom_generate(Path(save_directory))


def _check_layers(folder: Path, config: TriModeConfig) -> None:
    """Refuse a config of more layers than there are, for which transformers would make up weights.

    :raises CheckpointError: naming both numbers.
    """
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(regular(path), framework="pt") as file:
            names.update(file.keys())
    found = {name.split(".")[2] for name in names if name.startswith("model.layers.")}
    if names and len(found) != config.num_hidden_layers:
        raise CheckpointError(
            f"{folder}: config.json says num_hidden_layers={config.num_hidden_layers}, the weights are of "
            f"{len(found)}; export it again"
        )


def register() -> None:
    """Teach the Auto classes our model type; done when `dllm_transformers` is imported."""
    AutoConfig.register(MODEL_TYPE, TriModeConfig, exist_ok=True)
    AutoModelForCausalLM.register(TriModeConfig, TriModeForCausalLM, exist_ok=True)
