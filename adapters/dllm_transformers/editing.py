"""Spans of a text as masks inside `input_ids`, which `generate` fills in place."""

from typing import Any

import torch

from dllm_plugins.edits import Edit
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import shown
from dllm_plugins.template import Gap
from dllm_plugins.text.chats import encode_text
from dllm_plugins.text.seams import parts_of


def edit_inputs(edit: Edit, tokenizer: Any, mask_token_id: int | None = None) -> dict[str, Any]:
    """What `model.generate(**edit_inputs(edit, tokenizer), tokenizer=tokenizer)` needs to write spans of a text anew.

    Each span has as many masks as the text that it holds has tokens, one at least: `generate` puts one token in
    place of each mask. The rest of the text is decoded from its own ids, so it comes back as the tokenizer reads it.

    :param mask_token_id: the model's own, where the tokenizer names none.
    :returns: `input_ids` int64 [1, N], and `constraint`, what the masks of each span must be: of a token that the
        beginning of a span cuts, the characters before it.
    :raises RequestError: for a tokenizer without a mask token, an edit in a chat, and a text that cannot be tokenised.
    """
    mask = getattr(tokenizer, "mask_token_id", None) if mask_token_id is None else mask_token_id
    if mask is None:
        raise RequestError("the tokenizer names no mask token; give mask_token_id, the checkpoint's own")
    if edit.template.chat:
        raise RequestError(f"chat={shown(edit.template.chat)}: put what apply_chat_template makes of it before the ids")

    def encode(text: str, special: bool) -> list[int]:
        return encode_text(tokenizer, text, frozenset({mask}), special)

    ids, held = list[int](), list[Any]()
    for part in parts_of(tokenizer, edit.template, encode):
        if isinstance(part, Gap):
            ids += [mask] * max(len(encode(part.head + (part.old or ""), False)), 1)
            held.append(part.constraint)
        else:
            ids += part
    found: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    return found if not any(held) else found | {"constraint": [held]}
