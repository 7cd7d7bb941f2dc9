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

from dllm_plugins.errors import OptionError
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.spreading import loading_onto
from dllm_plugins.files.replacing import replacing
from dllm_transformers.adapting import WholeAdapters
from dllm_transformers.arguments import DTYPE_KEYS
from dllm_transformers.arguments import HUB
from dllm_transformers.arguments import SPREADING
from dllm_transformers.arguments import checked
from dllm_transformers.arguments import dtype_of
from dllm_transformers.arguments import refuse_old_config
from dllm_transformers.generate import DiffusionGenerationMixin
from dllm_transformers.hub import write_custom_generate
from dllm_transformers.opening import base_and_adapter
from dllm_transformers.tri_mode import MODEL_TYPE
from dllm_transformers.tri_mode import DenoiserTensors
from dllm_transformers.tri_mode import TriModeConfig
from dllm_transformers.tri_mode import check_config
from dllm_transformers.tri_mode import check_folder
from dllm_transformers.tri_mode import config_of

#: Arguments of `from_pretrained` that transformers honours for this class.
HONOURED = frozenset({"generation_config", "output_loading_info"})
#: Entries of the config, which may be given by name.
ENTRIES = vars(TriModeConfig()).keys() - {*DTYPE_KEYS}


class TriModeForCausalLM(WholeAdapters, DiffusionGenerationMixin, LlamaForCausalLM):
    """Samples by block diffusion wherever transformers calls `generate`."""

    config_class = TriModeConfig

    def __init__(self, config: TriModeConfig) -> None:
        # Before a single layer is made.
        check_config(config)
        super().__init__(config)
        self.denoiser = DenoiserTensors(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Like every model's, but a checkpoint whose tensors do not fit its config is not loaded in part.

        The folder of an adapter is loaded with the checkpoint that it names.

        :raises CheckpointError: for files that are missing or damaged, and naming a tensor that is
            missing, surplus, misshapen or no weight.
        :raises OptionError: for an argument that cannot be honoured.
        """
        if kwargs.get("gguf_file") is not None:
            raise OptionError(
                f"gguf_file={kwargs['gguf_file']!r} holds no denoiser; decode with llama.cpp through "
                f"load_model('dllm', backend='llama_cpp', ...) of dllm_plugins"
            )
        config = kwargs.pop("config", None)
        made = isinstance(config, TriModeConfig)
        entries = {} if made else {name: kwargs.pop(name) for name in ENTRIES.intersection(kwargs)}
        from_files, adapter = pretrained_model_name_or_path is not None, None
        if from_files:
            pretrained_model_name_or_path, adapter = base_and_adapter(pretrained_model_name_or_path, kwargs)
        kwargs = checked(kwargs, args, HONOURED if from_files else HONOURED | {"state_dict"})
        for name in DTYPE_KEYS:
            dtype_of(kwargs.get(name))
        if from_files:
            hub = {key: kwargs[key] for key in HUB if kwargs.get(key) is not None}
            folder = hub_folder(pretrained_model_name_or_path, **hub) / (kwargs.get("subfolder") or "")
            if config is not None:
                refuse_old_config(folder)
            config = config_of(folder if config is None else config, entries)
            check_folder(folder, config)
        asked = {name: kwargs[name] for name in ("attn_implementation", "device_map", *SPREADING) if name in kwargs}
        with loading_onto(pretrained_model_name_or_path, asked):
            found = super().from_pretrained(pretrained_model_name_or_path, config=config, **kwargs)
        if adapter is not None:
            # With `output_loading_info` it comes with what is said of the base's weights.
            (found[0] if isinstance(found, tuple) else found).load_adapter(**adapter)
        return found

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Like every model's; the folder also gets `custom_generate/`, for users without our classes.

        With an adapter that was added or loaded, that alone is written.

        :raises OptionError: for push_to_hub, which would upload the folder half made.
        """
        if kwargs.get("push_to_hub"):
            raise OptionError("push_to_hub=True uploads before the folder is complete; save it, then `hf upload` it")
        if self._hf_peft_config_loaded:
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        with replacing(save_directory) as place:
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
