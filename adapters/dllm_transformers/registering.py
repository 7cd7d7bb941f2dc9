"""Teaching the Auto classes and `pipeline`: our tri-mode model, and every original model type of the families.

transformers prefers a registered type to the code a repository brings, so nothing is
asked and nothing of a repository runs. Types that transformers itself has (llama, qwen2,
modernbert, diffusion_gemma) stay its own; `DiffusionModelForCausalLM` loads those.
"""

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig
from transformers import AutoModel
from transformers import AutoModelForCausalLM
from transformers import AutoModelForMaskedLM
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast
from transformers import Qwen2Tokenizer
from transformers.models.auto import configuration_auto
from transformers.models.auto import modeling_auto

from dllm_plugins import plugins
from dllm_plugins.errors import OptionError
from dllm_transformers import modeling
from dllm_transformers import pair_model
from dllm_transformers import pipelines
from dllm_transformers.diffusion_config import DiffusionConfig
from dllm_transformers.diffusion_config import config_class
from dllm_transformers.diffusion_model import DiffusionModelForCausalLM
from dllm_transformers.tri_mode import TriModeConfig

#: Model cards use any of these for diffusion models.
_AUTO = (AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM)
#: Those of other tasks with text, which transformers would answer with a list of all its configs.
_OTHER = (
    *("AutoModelForMultipleChoice", "AutoModelForNextSentencePrediction", "AutoModelForPreTraining"),
    *("AutoModelForQuestionAnswering", "AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification"),
    *("AutoModelForTextEncoding", "AutoModelForTokenClassification", "AutoModelForImageTextToText"),
    *("AutoModelForMultimodalLM",),
)


class DreamTokenizer(Qwen2Tokenizer):
    """What Dream's tokenizer_config.json calls the tokenizer that its repository brings as code."""


class RefusedClass:
    """Stands where an Auto class has no use for a diffusion model, and says so."""

    config_class: Any = None

    @classmethod
    def from_pretrained(cls, *_args: Any, **_kwargs: Any) -> Any:
        """Refused.

        :raises OptionError: always.
        """
        raise OptionError(
            f"{cls.__name__} has no head for that task: it predicts tokens at open positions, or the next one; load "
            f"it with AutoModelForCausalLM"
        )

    @classmethod
    def _from_config(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.from_pretrained(*args, **kwargs)


def _refuse(config: Any, autos: Sequence[Any]) -> None:
    """Let these Auto classes answer for a config with the reason."""
    refusing = type(config.__name__.replace("Config", "Model"), (RefusedClass,), {"config_class": config})
    for auto in autos:
        auto.register(config, refusing, exist_ok=True)


def own_model_types() -> list[str]:
    """The original model types that transformers does not have."""
    known = frozenset[str]().union(*(layout.model_types for layout in plugins.families().values()))
    transformers_auto: Any = configuration_auto
    return sorted(known - transformers_auto.CONFIG_MAPPING_NAMES.keys())


def register() -> None:
    """Done when `dllm_transformers` is imported."""
    modeling.register()
    pair_model.register()
    others = [getattr(modeling_auto, name) for name in _OTHER if hasattr(modeling_auto, name)]
    for auto in _AUTO:
        auto.register(TriModeConfig, modeling.TriModeForCausalLM, exist_ok=True)
    _refuse(TriModeConfig, others)
    _refuse(pair_model.PairConfig, [AutoModel, AutoModelForMaskedLM, *others])
    pipelines.register()
    AutoModelForCausalLM.register(DiffusionConfig, DiffusionModelForCausalLM, exist_ok=True)
    for model_type in own_model_types():
        config = config_class(model_type)
        name = config.__name__.replace("DiffusionConfig", "DiffusionModelForCausalLM")
        # One class serves all; transformers wants one for each config.
        model = type(name, (DiffusionModelForCausalLM,), {"config_class": config, "__module__": __name__})
        # Where pickle looks for it.
        globals()[name] = model
        AutoConfig.register(model_type, config, exist_ok=True)
        for auto in _AUTO:
            auto.register(config, model, exist_ok=True)
        _refuse(config, others)
        # A known type keeps the code of a repository's tokenizer from being asked for.
        tokenizer = DreamTokenizer if model_type == "Dream" else PreTrainedTokenizerFast
        AutoTokenizer.register(config, fast_tokenizer_class=tokenizer, exist_ok=True)
