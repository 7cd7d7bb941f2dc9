"""Diffusion checkpoints in their original format as a transformers class, for every family.

The weights live once, in the class of transformers that computes the same function;
`forward` gives its logits under the family's attention, `generate` is the engine's.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any
from typing import Self

from torch import Generator
from torch import Tensor
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.batching import wants_invariant
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.hub import denoiser_of
from dllm_plugins.families.hub import tokenizer_of
from dllm_plugins.families.implementation import ATTENTION
from dllm_plugins.families.spec import make_spec
from dllm_plugins.families.training import objective_of
from dllm_plugins.files.reading import reading
from dllm_plugins.models import Model
from dllm_plugins.processes.objectives import Objective
from dllm_transformers import opening
from dllm_transformers import saving
from dllm_transformers.adapting import WholeAdapters
from dllm_transformers.arguments import check_forward
from dllm_transformers.arguments import checked
from dllm_transformers.arguments import without_next_token
from dllm_transformers.diffusion_config import DiffusionConfig
from dllm_transformers.diffusion_config import refuse_of_forward
from dllm_transformers.generate import DiffusionGenerationMixin
from dllm_transformers.quantising import check_quantising
from dllm_transformers.quantising import mark
from dllm_transformers.quantising import quantise
from dllm_transformers.rounded import RoundedWeights
from dllm_transformers.rounded import check_rounded
from dllm_transformers.training_batch import batch_of
from dllm_transformers.training_loss import training_loss
from dllm_transformers.visibility import whole_sequence
from dllm_transformers.vocabulary import resize
from dllm_transformers.weights import NoText


class DiffusionModelForCausalLM(RoundedWeights, WholeAdapters, DiffusionGenerationMixin):
    """A diffusion language model of any family; made by `from_pretrained`.

    `objective` is how `forward` with labels computes its loss: the family's own where it is None, else an
    :class:`~dllm_plugins.processes.objectives.Objective` or the name of one.

    `loss_only`, False at first, leaves out the logits beside a loss, which a loop that reads the loss alone does not
    need: the head is then asked about masked tokens only.

    :param native: the loaded class that computes.
    """

    config_class = DiffusionConfig
    base_model_prefix = "native"
    _supports_sdpa = True
    #: The Trainer gives `num_items_in_batch` to `forward`.
    accepts_loss_kwargs = True

    def __init__(self, config: DiffusionConfig, native: PreTrainedModel, opened: opening.OpenedCheckpoint) -> None:
        super().__init__(config)
        self.native = native
        self.supports_gradient_checkpointing = native.supports_gradient_checkpointing
        self.opened = opened
        self.objective: str | Objective | None = None
        self.loss_only = False
        # By it the Trainer counts labels: all of them, or all but the first where rows predict what is right of them.
        self.loss_type = "ForCausalLM" if self.checkpoint.layout.shifted else "ForMaskedLM"
        self.generation_config = opening.generation_config(self.checkpoint)
        self.shipped_generation_config = opening.generation_config(self.checkpoint)
        self.stored_shapes = saving.shapes(self.checkpoint)
        if hasattr(native, "hf_device_map"):
            self.hf_device_map = native.hf_device_map

    @property
    def checkpoint(self) -> Checkpoint:
        """Folder, original config and layout."""
        return self.opened.checkpoint

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        config: Any = None,
        **options: Any,
    ) -> Self:
        """Load a checkpoint in its original format: a folder or a hub id. Nothing in it is run.

        The folder of an adapter, as PEFT saves it, is loaded with the checkpoint that it names, and can be trained on.

        :param config: in place of the checkpoint's own: a config of this class, its entries, or where they are.
        :param options: `dtype` of the weights, the checkpoint's own if not given; `device_map` with `max_memory`,
            `offload_folder` and `offload_buffers` as in transformers, by the names of the class that computes;
            `attn_implementation`, "sdpa" (default) or "eager"; `family` for checkpoints that look like ordinary
            models, `preset` for the sampler, `mask_id` where neither checkpoint nor family says it; `batch_invariant`
            as in :class:`~dllm_plugins.load_options.LoadOptions`; `weights`, "int8" or blocks such as "Q4_0", which
            are then the decoder's, so that the model decodes and does nothing else; `quantization_config` of torchao or
            bitsandbytes; those of the hub.
        :raises CheckpointError: for a checkpoint that is missing, damaged, unknown or refused.
        :raises OptionError: for an option that cannot be honoured.
        """
        name, adapter = opening.base_and_adapter(pretrained_model_name_or_path, options)
        _check(options, model_args)
        attention = options.get("attn_implementation")
        dtype = options.get("torch_dtype") if options.get("dtype") is None else options["dtype"]
        given = cls.config_class.of(opening.config_of_base(config, adapter, options))
        opened = opening.opened(name, given, dtype, options)
        rounds, quantising = check_rounded(opened, options, adapter), options.get("quantization_config")
        check_quantising(quantising, options)
        spread = {name: options.get(name) for name in ("device_map", "max_memory", "offload_folder")}
        buffers = bool(options.get("offload_buffers"))
        native = load_checkpoint(opened.checkpoint, opened.dtype, **spread, offload_buffers=buffers)
        if attention is not None:
            native.set_attn_implementation(attention)
        form = "" if quantising is None else quantise(native, quantising)
        with reading(opened.checkpoint.folder):
            if given is None:
                given = cls.config_class(**opened.checkpoint.stated)
                given.name_or_path = opened.name
            given.dtype = native.dtype
            made = cls(given, native, opened)
        made.train(mode=False)
        made.quantised = form
        if quantising is not None:
            mark(made, quantising)
        if adapter is not None:
            made.load_adapter(**adapter)
        if rounds:
            made.rounded = denoiser_of(native, opened.checkpoint, made.spec, "kernels", opened.options.weights)
        return made

    @classmethod
    def _from_config(cls, *_args: Any, **_kwargs: Any) -> Self:
        """What `from_config` calls.

        :raises OptionError: always.
        """
        raise OptionError(f"{cls.__name__} has no random weights; load a checkpoint with from_pretrained")

    @cached_property
    def spec(self) -> ModelSpec:
        """What the engine must know of the model."""
        tokenizer, options = tokenizer_of(self.checkpoint), self.opened.options
        return make_spec(self.opened.name, self.checkpoint, tokenizer, options, plugins.modes())

    def __setattr__(self, name: str, value: Any) -> None:
        """TRL puts a `forward` of its own here, which would ask for log-probabilities of next tokens."""
        super().__setattr__(name, without_next_token(value) if name == "forward" else value)

    def training_objective(self) -> Objective:
        """How `forward` with labels noises a text and weights what is masked.

        :raises OptionError: where it is not known how the family was trained, and for an `objective` that does not fit.
        """
        return objective_of(self.checkpoint.layout, self.spec.samplers["diffusion"], self.objective)

    def engine_model(self) -> Model:
        """The model as the engine decodes it, on these very weights."""
        if self.rounded is not None:
            return Model(self.opened.name, self.rounded, NoText())
        invariant = wants_invariant(self.opened.options, self.native.device, type(self.native))
        spec = self.spec
        if self.quantised:
            spec = replace(spec, name=f"{spec.name} with {self.quantised} weights", weights=self.quantised)
        denoiser = denoiser_of(self.native, self.checkpoint, spec, batch_invariant=invariant)
        return Model(self.opened.name, denoiser, NoText())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        *,
        block_length: int | None = None,
        causal: bool = False,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        generator: Generator | None = None,
        **neutral: Any,
    ) -> Any:
        """Logits of a whole sequence, as the original class returns them: never shifted.

        With `labels` the text is clean: it is noised here as the family's training does, and the loss is the
        family's own. The logits are then those of the noised text.

        :param input_ids: int64 [batch, length], the mask id where open.
        :param attention_mask: [batch, length], 0 at padding; rows then equal themselves alone. One
            of four dimensions is used as it is.
        :param position_ids: rotary positions [batch, length]; counted without the padding if not given.
        :param decoder_input_ids: the canvas [batch, canvas length], for models that encode the prompt apart.
        :param block_length: of block-causal attention; the checkpoint's own if not given.
        :param causal: look leftwards only, for families that know both (Nemotron-Labs).
        :param labels: int64 [batch, length], `input_ids` again with -100 where nothing is to be learnt, such as at
            prompts, which stay without noise; never shifted.
        :param num_items_in_batch: how many labels all batches of a step have together, as the Trainer counts them.
        :param generator: draws the noise; torch's own of the CPU, which seeds of the Trainer set, if not given.
        :param neutral: what PEFT and TRL name for every model, as long as nothing is asked with it.
        :returns: `logits` float [batch, length, vocabulary], and `loss`, a scalar, where there are labels.
        :raises OptionError: for what has no effect on this family, for labels that are not the text, and where it
            is not known how the family was trained.
        """
        check_forward(neutral)
        self.need_weights("forward()")
        if labels is not None:
            if decoder_input_ids is not None or causal:
                name = "causal" if causal else "decoder_input_ids"
                raise OptionError(f"{name} has no effect beside labels; leave it out, and see model.objective")
            objective = self.training_objective()
            shifted = objective.causal or self.checkpoint.layout.shifted
            batch = batch_of(input_ids, labels, attention_mask, position_ids, shifted=shifted)
            loss, logits = training_loss(
                self, objective, batch, position_ids, block_length, generator, num_items_in_batch
            )
            return MaskedLMOutput(loss=loss, logits=logits) if return_dict is not False else (loss, logits)
        for name, value in (("num_items_in_batch", num_items_in_batch), ("generator", generator)):
            if value is not None:
                raise OptionError(f"{name} has no effect without labels; leave it out, or give labels")
        found = whole_sequence(
            self.native,
            self.checkpoint,
            input_ids,
            attention_mask,
            position_ids,
            decoder_input_ids,
            block_length,
            causal,
        )
        return MaskedLMOutput(logits=found) if return_dict is not False else (found,)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write the checkpoint in its original format, with the weights as they are now.

        With an adapter that was added or loaded, that alone is written, as every model of transformers does.

        :param kwargs: `max_shard_size`.
        :raises OptionError: for anything else that is asked for.
        :raises CheckpointError: for weights that are not in memory, or cannot be written back.
        """
        if self._hf_peft_config_loaded:
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        self.need_plain_weights("save_pretrained()")
        saving.save(self, save_directory, self.stored_shapes, *args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See :class:`torch.nn.Module`; what `save_pretrained` has written is taken as well, by its original names.

        The Trainer goes on from its checkpoints by this.

        :raises CheckpointError: for weights of another model, of which some would be missing or have another shape.
        """
        self.need_plain_weights("load_state_dict()")
        if not self.stored_shapes.keys() & state_dict.keys():
            return super().load_state_dict(state_dict, strict, assign)
        found = saving.take_original(self, state_dict, self.stored_shapes)
        if strict and (found.missing_keys or found.unexpected_keys):
            raise CheckpointError(
                f"missing from the weights: {found.missing_keys[:3]}, none of this model's: "
                f"{found.unexpected_keys[:3]}; load those that save_pretrained wrote"
            )
        return found

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The engine keeps its own."""
        return False

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """See :class:`~transformers.PreTrainedModel`; config.json and the original format follow.

        :param new_num_tokens: token ids there are to be, such as `len(tokenizer)`.
        :raises OptionError: for a family whose rows or number of ids stand in no place of their own, weights that are
            not in memory, and where an adapter is there already.
        :raises CheckpointError: where the mask would be cut off.
        """
        self.need_plain_weights("resize_token_embeddings()")
        return resize(self, new_num_tokens, pad_to_multiple_of, mean=mean_resizing)

    def get_input_embeddings(self) -> nn.Module:
        """Of the class that computes."""
        found: nn.Module = self.native.get_input_embeddings()
        return found

    def get_output_embeddings(self) -> nn.Module:
        """Of the class that computes."""
        found: nn.Module = self.native.get_output_embeddings()
        return found


def _check(options: dict[str, Any], positional: tuple[Any, ...]) -> None:
    """Refuse what cannot be honoured when a checkpoint is loaded; takes out what is done anyway.

    :raises OptionError: naming it.
    """
    refuse_of_forward(options)
    file, attention = options.pop("gguf_file", None), options.get("attn_implementation")
    if file is not None:
        raise OptionError(
            f"gguf_file={file!r}: transformers would unpack it into weights that no family reads; decode the file with "
            f"load_model('.../{file}') of dllm_plugins, or `llm -m` with its path"
        )
    checked(options, positional, frozenset({*opening.SAID, "quantization_config"}))
    if attention is not None and attention not in ATTENTION:
        raise OptionError(
            f"attn_implementation={attention!r} takes no masks of four dimensions, which say who sees whom here; use "
            f"{' or '.join(map(repr, ATTENTION))}"
        )
