"""Chats and texts of unequal lengths as batches that a diffusion model is trained on."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.families.templates import speaking
from dllm_plugins.processes.objectives import IGNORED
from dllm_plugins.text.chats import encode_chat
from dllm_plugins.text.chats import encode_text


class DiffusionCollator:
    """A data collator: examples to `input_ids`, `attention_mask` and `labels`, int64 [batch, length] each.

    An example holds `messages`, a chat whose last message, the assistant's, is learnt; or `prompt` and `completion`,
    two parts of a chat or of a text, of which the second is learnt; or `text`, all of which is; or `input_ids`, with
    `labels` if they are not all to be learnt. What `encode` gives is such an example.
    Texts and answers end in the end of text, and are filled up with it to one length. A model that fills a canvas
    learns from these where an answer ends, so they are seen and learnt like other tokens (LLaDA's GUIDELINES.md,
    Dream-Coder's and LLaDA2's fine-tuning). Where blocks are denoised, the last one is filled up, too; of
    DiffusionGemma only the last canvas of each answer, and what stands behind it is hidden.

    :param model: a :class:`~dllm_transformers.DiffusionModelForCausalLM`.
    :param tokenizer: its own. Chats are written with its chat template, and with the family's where every host does so,
        because there is none or LLaDA's shipped one.
    :param max_length: tokens of an example at most; the rest is cut off. The model's context if not given.
    :param learn_padding: False hides what only fills up, as for plain text that is learnt as it is.
    :param end_id: the end of text. If not given it is the tokenizer's `eos_token_id`, and the checkpoint's where the
        model's answers do not end at that.
    :raises OptionError: where no token ends a text, or no token would be left.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        learn_padding: bool = True,
        end_id: int | None = None,
    ) -> None:
        spec = model.spec
        self.end_id = _end_of_text(tokenizer, spec) if end_id is None else end_id
        self.max_length = model.checkpoint.context if max_length is None else max_length
        if self.max_length < 1:
            raise OptionError(f"max_length={max_length} leaves no token; give 1 or more, or leave it out")
        self.tokenizer = speaking(tokenizer, model.checkpoint.layout)
        self.learn_padding = learn_padding
        self._control = frozenset({spec.mask_id, *spec.stop_ids})
        self._name = spec.name
        #: Of a model whose canvases are filled up each by itself, from where the answer begins.
        self._canvas = spec.block_length if model.checkpoint.layout.noise == "uniform" else None
        self._multiple = spec.block_length if model.checkpoint.layout.attention == "block-causal" else 1

    def encode(self, example: Mapping[str, Any]) -> dict[str, list[int]]:
        """One example as `input_ids` and `labels`, without what fills it up; for `dataset.map`.

        :raises RequestError: for an example that holds none of what is learnt, a chat that does not end in an
            answer or that the template refuses, and one whose answer does not begin within `max_length`.
        """
        if "messages" in example:
            prompt, ids = self._chat(example["messages"])
        elif "prompt" in example and "completion" in example:
            prompt, ids = self._completed(example["prompt"], example["completion"])
        elif "text" in example:
            prompt, ids = 0, encode_text(self.tokenizer, example["text"], self._control, special=True)
        elif "input_ids" in example:
            ids = list(example["input_ids"])[: self.max_length]
            return {"input_ids": ids, "labels": list(example.get("labels", ids))[: self.max_length]}
        else:
            raise RequestError(
                f"an example has {', '.join(map(repr, example)) or 'nothing'}; give 'messages', 'prompt' with "
                f"'completion', 'text' or 'input_ids'. The Trainer drops all but the last unless "
                f"remove_unused_columns=False"
            )
        if ids[-1:] != [self.end_id]:
            ids = [*ids, self.end_id]
        if prompt >= self.max_length:
            raise RequestError(
                f"a chat has {prompt} tokens before its answer, and max_length={self.max_length} cuts the answer off; "
                f"raise it, or leave the example out"
            )
        return {"input_ids": ids[: self.max_length], "labels": [*[IGNORED] * prompt, *ids[prompt:]][: self.max_length]}

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch; see :meth:`encode` for what it raises."""
        rows = [self.encode(example) for example in examples]
        ends = self._ends(rows)
        label, seen = (self.end_id, 1) if self.learn_padding else (IGNORED, 0)
        found: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for row, end in zip(rows, ends, strict=True):
            length = len(row["input_ids"])
            more, away = end - length, max(ends) - end
            found["input_ids"].append([*row["input_ids"], *[self.end_id] * (more + away)])
            found["attention_mask"].append([*[1] * length, *[seen] * more, *[0] * away])
            found["labels"].append([*row["labels"], *[label] * more, *[IGNORED] * away])
        return {name: torch.tensor(value) for name, value in found.items()}

    def _ends(self, rows: Sequence[Mapping[str, list[int]]]) -> list[int]:
        """How far each text is filled up: as far as the longest, to a whole block; or to whole canvases of its own."""
        if self._canvas is not None:
            begins = [next((at for at, one in enumerate(row["labels"]) if one != IGNORED), 0) for row in rows]
            return [
                begin + _whole(len(row["labels"]) - begin, self._canvas)
                for begin, row in zip(begins, rows, strict=True)
            ]
        return [_whole(max(len(row["input_ids"]) for row in rows), self._multiple)] * len(rows)

    def _completed(self, prompt: Any, completion: Any) -> tuple[int, list[int]]:
        """How many tokens stand before the completion, and all; each is a text, or a list of messages."""
        if not isinstance(prompt, str) and not isinstance(completion, str):
            if len(completion) != 1:
                raise RequestError(f"'completion' has {len(completion)} messages, and one answer is learnt; give that")
            return self._chat([*prompt, *completion])
        if not isinstance(prompt, str) or not isinstance(completion, str):
            raise RequestError("of 'prompt' and 'completion' one is a text and the other a chat; give two of a kind")
        # Apart, so that no token reaches over the seam: a prompt is asked with by itself.
        before = encode_text(self.tokenizer, prompt, self._control, special=True)
        if before[-1:] == [self.end_id]:
            before.pop()
        return len(before), before + encode_text(self.tokenizer, completion, self._control, special=False)

    def _chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, list[int]]:
        """How many tokens stand before the last answer, and all of the chat's."""
        if not messages or messages[-1].get("role") != "assistant":
            last = messages[-1].get("role") if messages else None
            raise RequestError(
                f"a chat ends in a message of role {last!r}; the last one, which is learnt, is 'assistant'"
            )
        before = encode_chat(self.tokenizer, messages[:-1], self._control, self._name)
        whole = {"add_generation_prompt": False}
        ids = encode_chat(self.tokenizer, messages, self._control, self._name, variables=whole)
        if ids[: len(before)] != before:
            raise RequestError(
                f"the chat template of {self._name} writes a chat otherwise once it is answered, so that the answer "
                f"cannot be told apart; give 'input_ids' and 'labels'"
            )
        return len(before), ids


def _whole(length: int, multiple: int) -> int:
    """The least multiple that is no less than the length."""
    return -(-length // multiple) * multiple


def _end_of_text(tokenizer: Any, spec: ModelSpec) -> int:
    """What ends texts: the tokenizer's, unless the model would not stop there and has one of its own.

    :raises OptionError: if there is neither.
    """
    own: int | None = tokenizer.eos_token_id
    found = own if own in spec.stop_ids or spec.eos_id is None else spec.eos_id
    if found is None:
        raise OptionError("the tokenizer has no eos_token_id, which ends texts; say end_id=..., a token id")
    return found
