"""config.json of a diffusion checkpoint, word for word, as transformers' config object."""

import copy
import json
from typing import Any

import torch
from transformers import PreTrainedConfig

from dllm_plugins import plugins
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import layout_of
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.reading import reading
from dllm_transformers.arguments import DTYPE_KEYS
from dllm_transformers.arguments import entries_of

#: Choices of the class that computes, not of the checkpoint; recipes leave them in their configs.
IMPLEMENTATION = ("attn_implementation", "experts_implementation")
#: Keys that PreTrainedConfig would act on: the family's class gets its own config from the layout.
_KEPT_BACK = (*IMPLEMENTATION, "output_attentions", "per_layer_config", "quantization_config", "rope_scaling")
#: What transformers would note in a config and read in every forward, which here is the engine's, and what it must be.
_OF_FORWARD = {"output_attentions": False, "output_hidden_states": False, "return_dict": True, "use_cache": True}


def refuse_of_forward(options: dict[str, Any]) -> None:
    """Take out what asks for what is done anyway, and raise for the opposite.

    :raises OptionError: naming it.
    """
    for name, usual in _OF_FORWARD.items():
        value = options.pop(name, None)
        if value is not None and value is not usual:
            raise OptionError(
                f"{name}={value!r} has no effect on diffusion checkpoints when they are loaded: the engine keeps the "
                f"keys, and forward() returns logits; leave it out"
            )


def _check_value(name: str, value: Any) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"{name}={value!r} is an entry of config.json, which holds numbers, texts, lists and objects; give one"
        ) from error


class DiffusionConfig(PreTrainedConfig):
    """The original config of a diffusion checkpoint; every key is an attribute too.

    :param original: config.json's entries; what is written back by `save_pretrained`, with
        the attributes that were changed meanwhile.
    """

    def __init__(self, **original: Any) -> None:
        # transformers validates, and so asks for sizes, before its __init__ is through.
        self._original: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        super().__init__(**{name: value for name, value in original.items() if name not in _KEPT_BACK})
        original.pop("name_or_path", None)
        self._original = copy.deepcopy(original)
        self._first = {name: copy.deepcopy(getattr(self, name, None)) for name in original if name not in DTYPE_KEYS}

    @classmethod
    def of(cls, given: Any) -> "DiffusionConfig | None":
        """What a caller hands over as `config`: one of these, config.json's entries, or where that file is.

        :raises CheckpointError: if it cannot be read.
        :raises OptionError: for anything else, which would have no effect.
        """
        if given is None or isinstance(given, DiffusionConfig):
            return given
        found: DiffusionConfig = cls.from_dict(entries_of(given))
        return found

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; the dtype and the implementation of attention are left to the model.

        :raises OptionError: for a key of the config with a value that no config.json can hold, and for what has no
            effect there.
        :raises CheckpointError: for values that no config has.
        """
        original = copy.deepcopy(config_dict)
        kept_back = (*IMPLEMENTATION, *DTYPE_KEYS, *_OF_FORWARD)
        chosen = {name: kwargs.pop(name) for name in kept_back if name in kwargs}
        for name in config_dict.keys() & kwargs.keys():
            _check_value(name, kwargs[name])
        check_numbers(config_dict, "config.json")
        with reading(config_dict.get("_name_or_path") or "config.json"):
            found: Any = super().from_dict(dict(config_dict), **kwargs)
        config = found[0] if kwargs.get("return_unused_kwargs") else found
        config._original = original
        if kwargs.get("return_unused_kwargs"):
            return config, {**found[1], **chosen}
        refuse_of_forward(chosen)
        dtype = next((chosen[name] for name in DTYPE_KEYS if chosen.get(name) is not None), None)
        if dtype is not None:
            config.dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        return config

    def original(self) -> dict[str, Any]:
        """config.json's entries as they are now."""
        found = copy.deepcopy(self._original)
        for name, before in self._first.items():
            now = getattr(self, name, None)
            if now != before:
                found[name] = copy.deepcopy(now)
        self.dict_dtype_to_str(found)
        return found

    def state(self, name: str, value: Any) -> None:
        """Set an entry of config.json, also one that is not there yet."""
        self._original[name] = copy.deepcopy(value)
        self._first[name] = copy.deepcopy(value)
        setattr(self, name, value)

    def is_changed(self) -> bool:
        """Whether an entry is another than in the config.json that it was read from."""
        return self.original() != self._original

    def to_dict(self) -> dict[str, Any]:
        """The original format."""
        return self.original()

    def to_diff_dict(self) -> dict[str, Any]:
        """The original format: nothing in it is a default of ours."""
        return self.original()

    def layout(self, family: str | None = None) -> Layout:
        """The family's layout.

        :raises CheckpointError: for an architecture that no family knows, or that is refused.
        """
        return layout_of(self.original(), self.name_or_path or "this config", family, plugins.families())

    def native(self, family: str | None = None) -> Any:
        """The config of the class that computes.

        :raises CheckpointError: for a config that the family refuses.
        """
        original = self.original()
        with reading(self.name_or_path or "this config"):
            layout = self.layout(family)
            native: Any = layout.native(original)
            return native.config_class(**layout.config(original))

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> Any:
        """Sizes under transformers' usual names, whatever the original calls them."""
        try:
            return self.native().get_text_config()
        except CheckpointError:
            return self


def config_class(model_type: str) -> type[DiffusionConfig]:
    """The config class of an original model type."""
    name = "".join(part[:1].upper() + part[1:] for part in model_type.replace("-", "_").split("_"))
    space: dict[str, Any] = {"model_type": model_type, "__module__": __name__}
    # transformers gives subclasses without an __init__ of their own one that knows nothing of the parent's.
    space["__init__"] = DiffusionConfig.__init__
    made = type(f"{name}DiffusionConfig", (DiffusionConfig,), space)
    # Where pickle looks for it.
    globals()[made.__name__] = made
    return made
