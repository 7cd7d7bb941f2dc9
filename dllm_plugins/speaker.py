"""A model as who answers: from chats, tools and texts to what the engine is asked."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.errors import RequestError
from dllm_plugins.request import Request

if TYPE_CHECKING:
    from dllm_plugins.text.marks import ThinkingHabit
    from dllm_plugins.tools.format import CallFormat
    from dllm_plugins.tools.templates import ToolHabit
    from dllm_plugins.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class Speaker:
    """What a model's chats and texts are written with."""

    name: str
    denoiser: Denoiser
    tokenizer: Any

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self.denoiser.spec.context

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def thinks(self) -> bool:
        """Whether its chats tell thinking apart."""
        return self.chats and self.thinking_habit().thinking is not None

    def chat_request(
        self,
        messages: Sequence[Mapping[str, Any]],
        config: SamplingConfig | None = None,
        tools: Sequence["Tool"] = (),
        choice: str = "auto",
        parallel: bool | None = None,
        thinking: bool | None = None,
    ) -> Request:
        """The request that answers a chat; what the model thinks first is told apart from what it says.

        :param config: options of the answer, to which those of its tools are added; see :meth:`with_tools`.
        :param thinking: see :meth:`encode_chat`.
        :raises DllmError: for what these two refuse.
        """
        tokens = self.encode_chat(messages, tools, thinking)
        given = config or SamplingConfig()
        config = self.with_tools(given, tools, choice, parallel)
        thoughts = self.thinking_habit().begins(self.tokenizer, tokens)
        if not tools or choice != "auto" or thoughts is not None:
            return Request(tokens, config, thinking=thoughts)
        return self._chosen(Request(tokens, config), given, messages, tools, parallel, thinking)

    def _chosen(
        self,
        request: Request,
        given: SamplingConfig,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence["Tool"],
        parallel: bool | None,
        thinking: bool | None,
    ) -> Request:
        """The request with how to find out whether its answer calls.

        As it is where the chat template says how calls are written, so that its model knows when to write one, and
        where the model does not tell how likely a text is that follows another, or the mode does not read it so.

        :param given: its options, before those of tools were added.
        """
        from dllm_plugins.engine.admission import sampler_of
        from dllm_plugins.plugins import modes
        from dllm_plugins.routing.rules import standing
        from dllm_plugins.tools.choosing import IDLE
        from dllm_plugins.tools.choosing import Choosing
        from dllm_plugins.tools.holding import answering
        from dllm_plugins.tools.holding import calling

        habit, last, config, spec = self.tool_habit(), messages[-1], request.config, self.denoiser.spec
        mode = standing(config.mode, "constraint", modes(), spec)
        reads = sampler_of(modes(), mode or spec.modes[0], spec).keeps_prefix
        if habit.native or "ar" not in spec.modes or not reads:
            return request
        mark = tuple(self.tokenizer.encode(habit.form.before, add_special_tokens=False))
        calls = calling(tools, habit.form, parallel)
        if last["role"] == "tool":
            held = answering(config, given, habit.form)
            return replace(request, config=held, choosing=Choosing(mark, None, calls))
        if last["content"].strip() == IDLE or last["role"] != "user":
            return request
        idle = self.encode_chat([*messages[:-1], {**last, "content": IDLE}], tools, thinking)
        return replace(request, choosing=Choosing(mark, tuple(idle), calls))

    def text_request(self, text: str, config: SamplingConfig | None = None, special: bool = True) -> Request:
        """The request that goes on from a text.

        :param special: see :meth:`encode_text`.
        :raises RequestError: if it is no text, or spells a control token that cannot be written as text.
        """
        return Request(self.encode_text(text, special), config or SamplingConfig())

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence["Tool"] = (), thinking: bool | None = None
    ) -> list[int]:
        """Prompt ids of a chat, up to where the assistant's answer begins.

        Control tokens that a message spells, such as `<|im_end|>` or the mask, become the ordinary text they are;
        otherwise the ids are those of transformers' `apply_chat_template`.

        :param messages: `{"role": "system" | "user" | "assistant" | "tool", "content": text}`; an assistant's may have
            `tool_calls`, and `reasoning_content`, of which the template keeps what it wants.
        :param tools: what the model may call; see docs/tools.md for what is said of them.
        :param thinking: turns thinking on or off where the template can; not given, the template decides.
        :raises OptionError: if the template has no switch for `thinking`.
        :raises RequestError: if there are no messages or the last one is empty, if the chat template refuses them, or
            if they spell a control token that cannot be written as text.
        """
        from dllm_plugins.text import chats

        chats.check_messages(messages)
        if not messages or not (messages[-1]["content"].strip() or messages[-1]["role"] == "tool"):
            raise RequestError("the prompt is empty; write a question")
        if not self.tokenizer.chat_template:
            raise RequestError(f"{self.name} has no chat template; give it token ids, or use an instruct checkpoint")
        mind = self.thinking_habit()
        variables, messages, told = mind.variables(thinking, self.name), mind.remembered(messages), []
        if tools or any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            from dllm_plugins.tools.prompts import prompt_of

            habit = self.tool_habit()
            told = [tool.as_function() for tool in tools] if habit.native else []
            messages = prompt_of(messages, tools, habit)
        return chats.encode_chat(self.tokenizer, messages, self._control, self.name, told, variables)

    def with_tools(
        self, config: SamplingConfig, tools: Sequence["Tool"], choice: str = "auto", parallel: bool | None = None
    ) -> SamplingConfig:
        """The options of an answer that may call tools: every call is whole, and its arguments keep to their schema.

        A mode that cannot be held to anything answers as it likes, unless a call is asked for.

        :param choice: "auto", "any", or the tool that is called.
        :param parallel: whether there may be several calls; not given, there may where the model chooses to call.
        :raises OptionError: for a constraint beside tools, and for a schema that cannot be kept to.
        """
        if not tools:
            return config
        from dllm_plugins.engine.admission import sampler_of
        from dllm_plugins.plugins import modes
        from dllm_plugins.routing.rules import standing
        from dllm_plugins.tools.holding import held

        spec, known = self.denoiser.spec, modes()
        mode = standing(config.mode, "constraint", known, spec)
        free = sampler_of(known, mode or spec.modes[0], spec).unheld is not None
        return held(config, tools, choice, parallel, self.tool_habit().form, free)

    def call_form(self) -> "CallFormat":
        """How it writes calls.

        :raises RequestError: if it has no chat template.
        """
        return self.tool_habit().form

    def tool_habit(self) -> "ToolHabit":
        """How its chats tell of tools, and how it writes calls.

        :raises RequestError: if it has no chat template.
        """
        from dllm_plugins.text import chats
        from dllm_plugins.tools.templates import habit_of

        return habit_of(chats.template_of(self.tokenizer), self.tokenizer.special_tokens_map, self.name)

    def thinking_habit(self) -> "ThinkingHabit":
        """How its chats tell of thinking.

        :raises RequestError: if it has no chat template.
        """
        from dllm_plugins.text.marks import habit_of

        return habit_of(self.tokenizer, self.name)

    def encode_text(self, text: str, special: bool = True) -> list[int]:
        """Prompt ids of a text to go on from; control tokens that it spells become ordinary text.

        For a prompt with control tokens of your own, such as a gap to fill, give ids to :class:`Request`.

        :param special: put around it what the tokenizer puts around texts, such as a token that begins them.
        :raises RequestError: if it is no text, or spells a control token that cannot be written as text.
        """
        from dllm_plugins.text import chats

        return chats.encode_text(self.tokenizer, text, self._control, special)

    @property
    def _control(self) -> frozenset[int]:
        return self.denoiser.spec.stop_ids | {self.denoiser.spec.mask_id}
