"""TRL's SFTTrainer for diffusion models; not imported with the package, because it imports TRL.

Since 1.16 that trainer no longer asks the model for its loss: it computes -log p of the next token itself, from the
hidden states and the head. TRL says to override `compute_loss` for anything else, which is all that is done here.
"""

from typing import Any

from datasets import Dataset
from datasets import IterableDataset
from transformers import Trainer
from trl import SFTTrainer

from dllm_plugins.errors import OptionError
from dllm_transformers.collator import DiffusionCollator
from dllm_transformers.diffusion_model import DiffusionModelForCausalLM

#: Settings that mean something for the loss of the next token only, or for texts behind one another in a row, with
#: what they have to be.
_NEUTRAL = {
    "loss_type": "nll",
    "label_smoothing_factor": 0,
    "packing": False,
    "eval_packing": None,
    "padding_free": False,
    "assistant_only_loss": False,
    "completion_only_loss": None,
    "router_aux_loss_coef": None,
}


class DiffusionSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """The SFTTrainer of TRL, with the loss of the model's family and the text of :class:`DiffusionCollator`.

    Datasets hold `prompt` and `completion`, `messages`, `text`, or `input_ids` with `labels`; in all of them prompts
    are seen without noise and not learnt, and the end of text is learnt.

    :param model: a :class:`~dllm_transformers.DiffusionModelForCausalLM`, or PEFT's wrapper of one.
    :param args: an `SFTConfig`, whose `max_length` is the collator's.
    :param data_collator: a :class:`~dllm_transformers.DiffusionCollator`; one of `model` and `processing_class` if
        not given.
    :param processing_class: the model's tokenizer.
    :param more: what else SFTTrainer takes, `peft_config` among it.
    :raises OptionError: for another model, or none of a family whose loss is known; without a tokenizer; and for what
        would change only the loss of the next token.
    :raises RequestError: for an example of a dataset that cannot be learnt, as :meth:`DiffusionCollator.encode` says.
    """

    def __init__(
        self,
        model: Any,
        args: Any = None,
        data_collator: DiffusionCollator | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **more: Any,
    ) -> None:
        _check(model, args, more)
        if data_collator is None:
            if processing_class is None:
                raise OptionError("processing_class is not given; give the model's tokenizer, or a data_collator")
            length = None if args is None else args.max_length
            data_collator = DiffusionCollator(model, processing_class, max_length=length)
        self._collator = data_collator
        super().__init__(
            model,
            args,
            data_collator,
            self._encoded(train_dataset),
            self._encoded(eval_dataset),
            processing_class=data_collator.tokenizer if processing_class is None else processing_class,
            **more,
        )

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """See :class:`trl.SFTTrainer`; the dataset may be of any form that the trainer takes."""
        found: dict[str, float] = super().evaluate(self._encoded(eval_dataset), *args, **kwargs)
        return found

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss that the model itself computes, as :class:`transformers.Trainer` does."""
        return Trainer.compute_loss(self, model, inputs, *args, **kwargs)

    def _encoded(self, dataset: Any) -> Any:
        """With token ids in place of texts; several datasets by name stay apart."""
        if isinstance(dataset, dict):
            return {name: self._encoded(one) for name, one in dataset.items()}
        if not isinstance(dataset, Dataset | IterableDataset) or "input_ids" in next(iter(dataset)):
            return dataset
        return dataset.map(self._collator.encode, remove_columns=list(next(iter(dataset))))


def _check(model: Any, args: Any, more: dict[str, Any]) -> None:
    """See :class:`DiffusionSFTTrainer` for what it raises."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(inner, DiffusionModelForCausalLM):
        raise OptionError(
            f"model is a {type(inner).__name__}; give what AutoModelForCausalLM.from_pretrained loads from a diffusion "
            f"checkpoint. Those that predict the next token are trained by trl.SFTTrainer itself"
        )
    inner.training_objective()
    for name, neutral in _NEUTRAL.items():
        value = getattr(args, name, neutral)
        if value != neutral:
            raise OptionError(f"{name}={value!r} has no effect on the loss of a diffusion model; leave it out")
    for name in ("compute_loss_func", "formatting_func"):
        if more.get(name) is not None:
            why = "the loss is the model's own" if name == "compute_loss_func" else "give a dataset that holds 'text'"
            raise OptionError(f"{name} has no effect here; leave it out: {why}")
