"""A mixed bag of requests: chat, extraction, a JSON schema, infilling, code, arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_plugins import Gap
from dllm_plugins import JsonSchema
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template

#: What transformers and llama.cpp are asked, too: plain answers to chats.
PLAIN = ("chat", "extraction", "code", "arithmetic")
_LETTER = (
    "Copy every sentence with a price from this letter: 'Dear Ms Novak, thank you for your order. The blue lamp costs "
    "34 euros. It arrives on Monday. The red lamp costs 29 euros and is not in stock. Kind regards, Lampshop.'"
)
_LIST = "Repeat the list of names, one a line: Amelia Stone, Boris Kovac, Chen Wei, Daniela Rossi, Emre Yildiz."
_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
BAG = {
    "chat": ("How do aeroplanes stay in the air?", "What is a polite way to refuse an invitation?"),
    "extraction": (_LETTER, _LIST),
    "json": ("Describe a person from a novel as JSON.", "Max is 31 years old. Write his name and age as JSON."),
    "infilling": (
        "The capital of France is<fill>. It lies on the Seine.",
        "She opened it and<fill>, so she left.",
    ),
    "code": ("Write a Python function that adds two numbers.", "Write a loop in C that prints 1 to 10."),
    "arithmetic": ("How many minutes are there in a week?", "What is 17 times 6? Show each step."),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one model.

    :param tokens: most of an answer, or of a gap.
    """

    model: Model
    tokens: int

    def request(self, kind: str, prompt: str, mode: str) -> Request:
        """A prompt of the bag, greedy."""
        if kind == "infilling":
            return self.model.fill_request(Template.of_text(prompt, Gap(max_tokens=min(12, self.tokens))), mode=mode)
        held = JsonSchema(_PERSON) if kind == "json" else None
        config = SamplingConfig(mode=mode, max_new_tokens=self.tokens, constraint=held)
        return self.model.chat_request([{"role": "user", "content": prompt}], config)


def serves(mode: str, kind: str, filling: Sequence[str]) -> bool:
    """Whether a contestant can be asked that."""
    if kind == "infilling":
        return mode == "auto" or mode in filling
    return kind in PLAIN or mode in ("auto", "ar", "speculative", "diffusion")
