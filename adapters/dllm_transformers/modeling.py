"""The tri-mode model as a transformers class: Auto classes and `pipeline` sample by diffusion.

A folder in the hub's format with `model_type` "dllm_tri_mode" holds the unchanged base
under its own names and our denoiser under `denoiser.`; nothing in it is run as code.
`forward` is the base's, one causal row per token; `generate` is ours.
"""

import json
from typing import Any

from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import LlamaForCausalLM

from dllm_plugins.denoisers.weights import read_config
from dllm_plugins.errors import OptionError
from dllm_plugins.families.files import hub_folder
from dllm_plugins.files.reading import reading
from dllm_transformers.generate import generate
from dllm_transformers.hub import write_custom_generate
from dllm_transformers.opening import HUB
from dllm_transformers.placing import aside
from dllm_transformers.tri_mode import MODEL_TYPE
from dllm_transformers.tri_mode import TriModeConfig
from dllm_transformers.tri_mode import TriModeDenoiser
from dllm_transformers.tri_mode import check_config
from dllm_transformers.tri_mode import check_folder


class TriModeForCausalLM(LlamaForCausalLM):
    """Samples by block diffusion wherever transformers calls `generate`."""

    config_class = TriModeConfig

    def __init__(self, config: TriModeConfig) -> None:
        # Before a single layer is made.
        check_config(config)
        super().__init__(config)
        self.denoiser = TriModeDenoiser(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Like every model's, but a checkpoint whose tensors do not fit its config is not loaded in part.

        :raises CheckpointError: for files that are missing or damaged, and naming a tensor that is
            missing, surplus, misshapen or no weight.
        :raises OptionError: for a `gguf_file`.
        """
        if kwargs.get("gguf_file") is not None:
            raise OptionError(
                f"gguf_file={kwargs['gguf_file']!r} holds no denoiser; decode with llama.cpp through "
                f"load_model('dllm', backend='llama_cpp', ...) of dllm_plugins"
            )
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            hub = {key: kwargs[key] for key in HUB if kwargs.get(key) is not None}
            folder = hub_folder(pretrained_model_name_or_path, **hub) / (kwargs.get("subfolder") or "")
            config = kwargs.get("config")
            with reading(folder):
                own = config if isinstance(config, TriModeConfig) else TriModeConfig(**read_config(folder))
            check_folder(folder, own)
        with reading(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

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
        with aside(save_directory) as place:
            super().save_pretrained(place, *args, **kwargs)
            config = json.loads((place / "config.json").read_text(encoding="utf-8"))
            # `transformers serve` looks the first name up in transformers itself, where our class is not.
            config["architectures"] = ["AutoModelForCausalLM"]
            (place / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            write_custom_generate(place)


def register() -> None:
    """Teach the Auto classes our model type; done when `dllm_transformers` is imported."""
    AutoConfig.register(MODEL_TYPE, TriModeConfig, exist_ok=True)
    AutoModelForCausalLM.register(TriModeConfig, TriModeForCausalLM, exist_ok=True)
