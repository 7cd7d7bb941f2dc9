"""A model whose prompts are puzzles: how its hosts ask it, and what they may not ask."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message
from dllm_plugins.models import Model
from dllm_plugins.models import Preset
from dllm_plugins.models import auto_backend
from dllm_plugins.models import load_model
from dllm_plugins.request import Request
from dllm_plugins.template import Template
from dllm_plugins.text.chats import check_messages
from dllm_plugins.text.puzzles import Puzzle

if TYPE_CHECKING:
    from dllm_plugins.tools.tool import Tool

#: Reads a text as a puzzle.
Read = Callable[[str], Puzzle]


@dataclass(frozen=True, slots=True)
class PuzzleModel(Model):
    """A model of which every prompt is a puzzle, and every answer is checked.

    :param read: makes a puzzle of a text, and raises a RequestError for what is none.
    :param decoding: options of decoding where a request names none of its own.
    """

    read: Read
    decoding: Mapping[str, Any]

    def chat_request(
        self,
        messages: Sequence[Mapping[str, Any]],
        config: SamplingConfig | None = None,
        tools: Sequence["Tool"] = (),
        choice: str = "auto",
        parallel: bool | None = None,
        thinking: bool | None = None,
    ) -> Request:
        """The request that solves the chat's last message; what was solved before it has no bearing.

        :raises OptionError: for tools, thinking, and what an answer must be.
        :raises RequestError: for a system prompt, and for what is no puzzle.
        """
        self._refuse(tools, thinking)
        return self.text_request(self._asked(messages), config)

    def text_request(self, text: str, config: SamplingConfig | None = None, special: bool = True) -> Request:
        """The request that solves a puzzle.

        :raises OptionError: for what an answer must be.
        :raises RequestError: for what is no puzzle.
        """
        config = config or SamplingConfig()
        if config.constraint is not None:
            raise OptionError(
                message("{constraint}={!r}: {} answers puzzles; leave it out", config.constraint, self.name)
            )
        puzzle = self.read(text)
        if not config.given().keys() - COMMON_OPTIONS and config.mode is None:
            config = config.with_options(**self.decoding)
        config = config.with_options(max_new_tokens=min(config.max_new_tokens, puzzle.length))
        return Request(self.encode_text(puzzle.prompt, special), config, puzzle=puzzle)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence["Tool"] = (), thinking: bool | None = None
    ) -> list[int]:
        """Prompt ids of the chat's last message; it raises what :meth:`chat_request` does."""
        self._refuse(tools, thinking)
        return self.encode_text(self.read(self._asked(messages)).prompt)

    def fill_request(self, template: Template, **options: Any) -> Request:
        """There are no gaps in a puzzle but its own.

        :raises RequestError: always.
        """
        raise RequestError(f"{self.name} answers puzzles and fills no texts; give the puzzle alone, as a prompt")

    def _asked(self, messages: Sequence[Mapping[str, Any]]) -> str:
        check_messages(messages)
        for told in messages:
            if told["role"] not in ("user", "assistant"):
                raise RequestError(
                    f"{self.name} answers puzzles and knows no messages of role {told['role']!r}; give the puzzle alone"
                )
        if not messages or messages[-1]["role"] != "user":
            raise RequestError(f"{self.name} answers puzzles; the last message must be one, of role 'user'")
        return str(messages[-1]["content"])

    def _refuse(self, tools: Sequence["Tool"], thinking: bool | None) -> None:
        if tools:
            names = ", ".join(tool.name for tool in tools)
            raise OptionError(f"tools ({names}): {self.name} answers puzzles and calls none; leave them out")
        if thinking is not None:
            raise OptionError(message("{thinking}={}: {} answers puzzles at once; leave it out", thinking, self.name))


def preset_of(name: str, summary: str, place: str, read: Read, decoding: Mapping[str, Any] | None = None) -> Preset:
    """A named model that answers puzzles, for the hook `register_models`.

    :param summary: one line for people.
    :param place: of its checkpoint, as :func:`~dllm_plugins.models.load_model` takes it.
    :param read: see :class:`PuzzleModel`.
    :param decoding: likewise.
    """

    def load(options: LoadOptions) -> Model:
        found = load_model(place, **_given(options))
        return PuzzleModel(name, found.denoiser, found.tokenizer, read, decoding or {})

    return Preset(name, summary, load, lambda options: auto_backend(place, **_given(options)))


def _given(options: LoadOptions) -> dict[str, Any]:
    return {field: getattr(options, field) for field in LoadOptions.__dataclass_fields__}
