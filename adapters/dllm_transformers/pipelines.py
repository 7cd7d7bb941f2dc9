"""`pipeline("text-generation")`, in which what a user types opens no position and ends no turn.

transformers' own tokenises a rendered chat as one text, in which `<|im_end|>` in a message looks like the
template's. Where a text or a message spells no control token, and for models that are not ours, all is
as it was.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import TextGenerationPipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils.chat_template_utils import Chat

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import RequestError
from dllm_plugins.files.reading import raised_by_library
from dllm_plugins.text import chats
from dllm_transformers.diffusion_model import DiffusionModelForCausalLM
from dllm_transformers.fill_mask import DiffusionFillMask
from dllm_transformers.modeling import TriModeForCausalLM
from dllm_transformers.pair_model import PairForCausalLM
from dllm_transformers.strategy import block_diffusion

_OURS = DiffusionModelForCausalLM | TriModeForCausalLM | PairForCausalLM
_TASK = "text-generation"
#: Whoever says one of these to the tokenizer has decided what control tokens in a text are.
_DECIDED = ("split_special_tokens", "sanitize_control_tokens")


class DiffusionTextGeneration(TextGenerationPipeline):
    """What `pipeline("text-generation", ...)` makes once `dllm_transformers` is imported."""

    def preprocess(self, prompt_text: Any, prefix: Any = "", **options: Any) -> Any:  # type: ignore[override]
        """As in transformers, but control tokens that a prompt spells become the ordinary text they are.

        :param prompt_text: a text or a chat.
        :raises RequestError: for a prompt that holds half a character, or spells a control token that cannot
            be written as text, or not together with these options.
        """
        plain = partial(super().preprocess, prompt_text, **options)
        decided = any(name in _DECIDED for name in options.get("tokenizer_encode_kwargs") or {})
        if decided or not self._is_ours(options.get("custom_generate")):
            return plain(prefix=prefix)
        chat: Any = prompt_text.messages if isinstance(prompt_text, Chat) else None
        control, name = self._control(), str(self.model.name_or_path)
        read = partial(_bordered, plain, name)
        if not chats.spells(self.tokenizer, prefix + prompt_text if chat is None else chat, control, name):
            if chat is not None and self._is_plain(chat, options):
                # A template that refuses the chat, or never ends, is found out within bounds.
                chats.encode_chat(self.tokenizer, chat, control, name)
            return read(prefix=prefix)
        self._refuse(chat, prefix, options)
        if chat is None:
            special = options.get("add_special_tokens") is not False
            ids = chats.encode_text(self.tokenizer, prompt_text, control, special)
        else:
            ids = chats.encode_chat(self.tokenizer, chat, control, name)
        inputs, found = read(), torch.tensor([ids])
        for key, value in inputs.items():
            if isinstance(value, torch.Tensor):
                # Masks and the like, which say the same of every token.
                inputs[key] = found if key == "input_ids" else value[:, :1].expand_as(found).clone()
        return inputs

    def _forward(self, model_inputs: Any, **options: Any) -> Any:  # type: ignore[override]
        """As in transformers; the tokenizer goes along where a constraint needs it."""
        if options.get("constraint") is not None:
            options.setdefault("tokenizer", self.tokenizer)
        # transformers does not type this function.
        return super()._forward(model_inputs, **options)  # type: ignore[no-untyped-call]

    def _is_ours(self, strategy: Any) -> bool:
        strategy = strategy.func if isinstance(strategy, partial) else strategy
        return strategy is block_diffusion or isinstance(self.model, _OURS)

    @staticmethod
    def _is_plain(chat: Any, options: dict[str, Any]) -> bool:
        """Whether a chat holds what every template takes, and nothing else is to be written into it."""
        texts = all(isinstance(message.get("content"), str) and message.get("role") in chats.ROLES for message in chat)
        beside = any(options.get(name) for name in ("tools", "documents", "continue_final_message"))
        return texts and chat[-1]["role"] != "assistant" and not beside

    def _control(self) -> frozenset[int]:
        """The model's own control tokens, whether or not its tokenizer marks them as special."""
        if isinstance(self.model, DiffusionModelForCausalLM | PairForCausalLM):
            return self.model.spec.stop_ids | {self.model.spec.mask_id}
        ends = self.model.generation_config.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    @staticmethod
    def _refuse(chat: Any, prefix: str, options: dict[str, Any]) -> None:
        given = {"prefix": prefix or None, **options}
        names = ["prefix", "handle_long_generation", "truncation", "padding", "tokenizer_encode_kwargs"]
        names += [] if chat is None else ["tools", "documents"]
        wrong = [f"{name}={given[name]!r}" for name in names if given.get(name) is not None]
        follows = options.get("continue_final_message")
        if chat is not None and (chat[-1]["role"] == "assistant" if follows is None else follows):
            wrong.append("a last message that is to be continued")
        if wrong:
            raise RequestError(
                f"the prompt spells a control token, such as one that ends a turn, and that becomes text only without "
                f"{' and '.join(wrong)}; leave that out, or say in tokenizer_encode_kwargs what such a token is: "
                f"split_special_tokens=True for texts and sanitize_control_tokens=True for chats make it text"
            )


def _bordered(read: Callable[..., Any], name: str, **given: Any) -> Any:
    """What transformers reads; what it, a template or a tokenizer raises is an error of ours.

    :param name: of the model.
    :raises RequestError: with what was raised.
    """
    try:
        return read(**given)
    except DllmError:
        raise
    except BaseException as error:
        if not raised_by_library(error):
            raise
        raise RequestError(
            f"the prompt cannot be made ready for {name} ({type(error).__name__}: {error}); change it, or the options "
            f"beside it, as that says"
        ) from error


def register() -> None:
    """Let `pipeline` make ours; it stays transformers' own in all else, the default model included."""
    known = PIPELINE_REGISTRY.supported_tasks
    for task, made in ((_TASK, DiffusionTextGeneration), ("fill-mask", DiffusionFillMask)):
        known[task] = {**known[task], "impl": made}
