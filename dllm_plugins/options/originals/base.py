"""One original implementation, and what became of each of its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dllm_plugins.messages import Given
from dllm_plugins.messages import Message
from dllm_plugins.messages import Option
from dllm_plugins.messages import message

#: An option of a request, one of its sampler's own, one of loading, a field of a request, or nothing.
Kind = Literal["option", "preset_options", "loading", "request", "nothing"]
_PREFIXES: dict[str, Kind] = {"preset_options.": "preset_options", "loading.": "loading", "request.": "request"}


@dataclass(frozen=True, slots=True)
class Here:
    """What an argument is here.

    :param name: of the option or field; "" for nothing.
    :param note: what differs, or why there is nothing.
    """

    kind: Kind
    name: str = ""
    note: str = ""

    @classmethod
    def of(cls, text: str) -> "Here":
        """From a line of the table: `NAME`, `NAME | note`, or `- reason`."""
        if text.startswith("- "):
            return cls("nothing", note=text[2:])
        name, _, note = text.partition(" | ")
        for prefix, kind in _PREFIXES.items():
            if name.startswith(prefix):
                return cls(kind, name.removeprefix(prefix), note)
        return cls("option", name, note)

    def text_for(self, argument: str, value: object) -> Message:
        """What to do with an argument that was given, as the end of a sentence."""
        note = f" ({self.note})" if self.note else ""
        if self.kind == "option":
            return message("is called {} here{}", Option(self.name), note)
        if self.kind == "preset_options":
            # What it is worth here, the note says where that differs.
            entry = Given("preset_options", {self.name: value if argument == self.name else "..."})
            return message("is given as {} here{}", entry, note)
        if self.kind == "loading":
            name = Option(self.name)
            return message("is the checkpoint's here: where it does not say it, {} of loading does{}", name, note)
        if self.kind == "request":
            return message("is {} of the engine's Request here{}", self.name, note)
        return message("has no counterpart here: {}", self.note)

    def cell(self) -> str:
        """The same for a table."""
        where = {"loading": "`load_model(..., {}=...)`", "request": "`Request(..., {}=...)`"}
        where |= {"preset_options": "`preset_options={{'{}': ...}}`", "option": "`{}`", "nothing": "nothing"}
        named = where[self.kind].format(self.name)
        return f"{named}: {self.note}" if self.note else named


@dataclass(frozen=True, slots=True)
class Original:
    """An original function and its arguments, beside model, tokenizer and prompt.

    :param name: as the golden data calls it.
    :param sampler: ours that does the same.
    :param arguments: by its own names; what has the same name and meaning is in it, too.
    """

    name: str
    sampler: str
    arguments: Mapping[str, Here]


def original(name: str, sampler: str, *parts: Mapping[str, str], **arguments: str) -> Original:
    """One, from lines as :meth:`Here.of` reads them."""
    lines = {argument: text for part in (*parts, arguments) for argument, text in part.items()}
    return Original(name, sampler, {argument: Here.of(text) for argument, text in lines.items()})


#: How tokens are drawn, where an original has the same three.
DRAWING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
#: What transformers keeps beside the options of a generation config.
HISTORY = "- stream the answer: drafts show the canvas after every pass"
RESULT = "- every answer comes with its statistics; transformers' generate takes return_dict_in_generate"
STOPS = "request.stop_ids | the checkpoint's if not given; transformers' generate takes eos_token_id"
PADS = "- rows are never padded; transformers' generate takes pad_token_id for what it returns"
TOTAL_LENGTH = "max_new_tokens | without the prompt"
TRANSFORMERS = {
    "output_history": HISTORY,
    "return_dict": RESULT,
    "return_dict_in_generate": RESULT,
    "num_return_sequences": "- ask as often as answers are wanted; transformers' generate takes it",
    "bos_token_id": "- a prompt begins as it is given",
    "eos_token_id": STOPS,
    "pad_token_id": PADS,
    "attention_mask": PADS.replace("pad_token_id for what it returns", "attention_mask for padding on the left"),
    "max_length": TOTAL_LENGTH,
}
