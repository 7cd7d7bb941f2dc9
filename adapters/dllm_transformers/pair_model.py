"""A pair as a transformers class: Auto classes and `pipeline` load its folder, and `generate` is the engine's.

The folder holds a config.json that names the two models, and the tokenizer of the one that verifies; weights stay where
they are. They live in the engine, so such a model neither computes a gradient nor is saved.
"""

import json
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import NoReturn
from typing import Self

import torch
from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import GenerationConfig
from transformers import PreTrainedConfig
from transformers import PreTrainedTokenizerFast

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.files.replacing import read_config
from dllm_plugins.files.replacing import replacing
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.pairs.load import target_of
from dllm_plugins.pairs.named import Pair
from dllm_plugins.pairs.named import pairs
from dllm_transformers.arguments import DTYPE_KEYS
from dllm_transformers.arguments import SPREADING
from dllm_transformers.arguments import checked
from dllm_transformers.arguments import dtype_of
from dllm_transformers.generate import DiffusionGenerationMixin
from dllm_transformers.weights import NoText

MODEL_TYPE = "dllm_pair"
_SAVE = "a pair is named, not saved: copy its folder, write one with export_pair(), or register it by `llm dllm pair`"
_TRAIN = "a pair only generates: train its models one by one, each loaded by its own name"


class PairConfig(PreTrainedConfig):
    """The two models of a pair; see :class:`~dllm_plugins.pairs.named.Pair`."""

    model_type = MODEL_TYPE
    ar: str | None = None
    diffusion: str | None = None
    ar_options: dict[str, Any] | None = None
    diffusion_options: dict[str, Any] | None = None
    draft_length: int | None = None

    def pair(self) -> Pair:
        """What it names.

        :raises OptionError: for what is missing, or of another kind.
        """
        given = {name: getattr(self, name) for name in Pair.__dataclass_fields__}
        return Pair.of({name: value for name, value in given.items() if value is not None})


def pair_of(given: Any) -> Pair:
    """A pair by the name that it is registered under, or as a mapping.

    :raises OptionError: for a name that is not registered, and for a mapping that names no two models.
    """
    if isinstance(given, str):
        known = pairs()
        if given not in known:
            names = ", ".join(known) or "none"
            raise OptionError(f"{given!r} is no pair: registered are {names}; add one by `llm dllm pair {given}`")
        return known[given]
    if not isinstance(given, dict):
        raise OptionError(f"pair={shown(given)}: give the name of a pair, or {{'ar': NAME, 'diffusion': NAME}}")
    return Pair.of(given)


def export_pair(folder: str | Path, pair: str | dict[str, Any]) -> Path:
    """Write a folder by which the Auto classes and `pipeline` load a pair, where `dllm_transformers` is imported.

    :param folder: where to; one that an earlier call has written is replaced.
    :param pair: the name that it is registered under, or {"ar": NAME, "diffusion": NAME}, with options.
    :raises OptionError: for what is no pair, a model that cannot verify, or one without a tokenizer.
    :raises CheckpointError: if the model that verifies is missing or damaged.
    """
    found = pair_of(pair)
    tokenizer = _in_transformers(target_of(found), found.ar)
    entries = {"model_type": MODEL_TYPE, "architectures": [PairForCausalLM.__name__], **asdict(found)}
    for name in ("ar", "diffusion"):
        # The folder may be loaded from anywhere.
        place = Path(entries[name])
        entries[name] = str(place.resolve()) if place.exists() else entries[name]
    with replacing(folder) as place:
        tokenizer.save_pretrained(place)
        (place / "config.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def _in_transformers(model: Model, name: str) -> Any:
    tokenizer: Any = getattr(model.tokenizer, "in_transformers", model.tokenizer)
    if not hasattr(tokenizer, "save_pretrained"):
        raise OptionError(f"{name} has no tokenizer; add its tokenizer's files")
    return tokenizer


class PairForCausalLM(DiffusionGenerationMixin):
    """Two models under one name: `generate()` is what `load_model(pair=...)` decodes, the same tokens.

    :param model: the pair, loaded.
    """

    config_class = PairConfig

    def __init__(self, config: PairConfig, model: Model) -> None:
        super().__init__(config)
        self._loaded = model
        ends = sorted(self.spec.stop_ids)
        self.generation_config = GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if ends else None)
        self.shipped_generation_config = GenerationConfig(**self.generation_config.to_diff_dict())
        super().train(mode=False)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, config: Any = None, **options: Any
    ) -> Self:
        """Load a pair by its folder (:func:`export_pair`), or by the name that it is registered under.

        :param options: `dtype` and `device_map` (one device) of both models; others stand in the pair.
        :raises OptionError: for an option that cannot be honoured, and for what is no pair.
        :raises CheckpointError: if one of the two is missing or damaged.
        """
        given = checked(options, model_args, frozenset())
        for name in (*SPREADING, "attn_implementation"):
            if given.get(name) is not None:
                raise OptionError(f"{name}={shown(given[name])} is for one model; give it in ar_options of the pair")
        if config is None and Path(pretrained_model_name_or_path).is_dir():
            config = PairConfig.from_dict(read_config(Path(pretrained_model_name_or_path)))
        found = pair_of(pretrained_model_name_or_path) if config is None else config.pair()
        both = {"dtype": _name_of(given), "device": _device_of(given.get("device_map"))}
        loaded = load_model(str(pretrained_model_name_or_path), pair=asdict(found), **both)
        own = PairConfig(**asdict(found)) if config is None else config
        own.name_or_path = str(pretrained_model_name_or_path)
        return cls(own, loaded)

    @classmethod
    def _from_config(cls, *_args: Any, **_kwargs: Any) -> Self:
        raise OptionError(f"{cls.__name__} has no random weights; load a pair with from_pretrained")

    @property
    def spec(self) -> ModelSpec:
        """What the engine knows of the pair."""
        return self._loaded.denoiser.spec

    @property
    def tokenizer(self) -> Any:
        """That of the model that verifies, as an object of transformers.

        :raises OptionError: if it has none.
        """
        return _in_transformers(self._loaded, self.spec.target or self.spec.name)

    @property
    def device(self) -> torch.device:
        """Where ids are expected; the engine takes them to both models."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype | None:  # type: ignore[override]
        """The two may differ, so nobody can say."""
        return None

    def engine_model(self) -> Model:
        """The pair as the engine decodes it; generate() deals in ids."""
        found: Model = replace(self._loaded, tokenizer=NoText())
        return found

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """See :func:`dllm_transformers.generate`; `custom_generate` still is another strategy.

        :raises OptionError: also for a strategy that cannot be loaded or nobody trusts, and for an assistant.
        """
        if kwargs.get("assistant_model") is not None:
            raise OptionError("assistant_model is of no use to a pair, which has a model that drafts; leave it out")
        return super().generate(*args, **kwargs)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **_others: Any) -> NoReturn:
        """Refused.

        :raises OptionError: always.
        """
        raise OptionError(f"forward() of a pair is nobody's: it has two models; {_TRAIN}")

    def train(self, mode: bool = True) -> Self:
        """As every module's, but never with a mode for training.

        :raises OptionError: for that.
        """
        if mode:
            raise OptionError(f"train() of a pair: {_TRAIN}")
        super().train(mode)
        return self

    def save_pretrained(self, save_directory: Any, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused.

        :raises OptionError: always.
        """
        raise OptionError(f"save_pretrained({shown(str(save_directory))}): {_SAVE}")

    def push_to_hub(self, repo_id: Any, *_args: Any, **_kwargs: Any) -> NoReturn:  # type: ignore[override]
        """Refused.

        :raises OptionError: always.
        """
        raise OptionError(f"push_to_hub({shown(repo_id)}): {_SAVE}")

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The engine keeps its own."""
        return False


def _name_of(options: dict[str, Any]) -> str:
    found = dtype_of(next((options[name] for name in DTYPE_KEYS if options.get(name) is not None), None))
    return "auto" if found is None else str(found).removeprefix("torch.")


def _device_of(given: Any) -> str:
    if given is None or isinstance(given, str | torch.device):
        return "auto" if given is None else str(given)
    raise OptionError(f"device_map={shown(given)} spreads one model; give it in ar_options or diffusion_options")


def register() -> None:
    """Teach the Auto classes; done when `dllm_transformers` is imported."""
    AutoConfig.register(MODEL_TYPE, PairConfig, exist_ok=True)
    AutoModelForCausalLM.register(PairConfig, PairForCausalLM, exist_ok=True)
    AutoTokenizer.register(PairConfig, fast_tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)
