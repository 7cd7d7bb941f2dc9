"""What is said of an option that there is not: what it is called here, why it is missing, or what there is.

One place for every host: other interfaces' names for what exists, and reasons for what does not.
"""

from collections.abc import Iterable
from collections.abc import Mapping

from dllm_plugins.messages import Message
from dllm_plugins.messages import Option
from dllm_plugins.messages import listed
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.options.originals.table import answer

#: Names that other interfaces have for options that are here, under the engine's names.
RENAMED: Mapping[str, str] = {
    **dict.fromkeys(("max_new_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens"), "max_new_tokens"),
    **dict.fromkeys(("max_length", "num_predict", "n_predict"), "max_new_tokens"),
    **dict.fromkeys(("stop", "stop_sequences", "stop_strings", "stop_words"), "stop"),
    **dict.fromkeys(("random_seed", "seed"), "seed"),
    "guidance_scale": "guidance",
    "num_return_sequences": "n",
    **dict.fromkeys(("repeat_penalty", "penalty"), "repetition_penalty"),
    **dict.fromkeys(("bad_words_ids", "bad_words", "banned_tokens"), "bad_words"),
    **dict.fromkeys(("min_tokens", "min_new_tokens"), "min_new_tokens"),
    **dict.fromkeys(("top_logprobs", "n_probs", "output_scores", "output_logits"), "logprobs"),
}
_TOOLS = "no model here calls tools; put what the tools return into the prompt"
_FORMAT = (
    "what an answer must be is said by the option constraint in Python, by --schema and -o regex in llm, and by "
    "with_structured_output or response_format in a call of ChatDLLM"
)
_LOGITS = (
    "what changes logits here is repetition_penalty, no_repeat_ngram_size and bad_words, and in generate() of "
    "transformers, mode 'ar', any logits_processor"
)
_ONE = "a prompt has one answer; ask several times, with a temperature and another seed each"
_SERVER = "it is for a service far away, and this model runs on this machine; leave it out"
#: Why there is none of that name.
REASONS: Mapping[str, str] = {
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"), _TOOLS),
    **dict.fromkeys(("response_format", "schema", "json_schema", "guided_json", "grammar", "format"), _FORMAT),
    **dict.fromkeys(("logit_bias", "presence_penalty", "frequency_penalty"), _LOGITS),
    **dict.fromkeys(("min_p", "typical_p"), "truncation is by top_k and top_p here"),
    **dict.fromkeys(("n", "best_of", "num_return_sequences", "num_beams"), _ONE),
    **dict.fromkeys(("user", "store", "service_tier", "safety_identifier", "base_url", "organization"), _SERVER),
    **dict.fromkeys(("extra_body", "extra_headers", "default_headers", "prompt_cache_key"), _SERVER),
    **dict.fromkeys(
        ("stream_options", "stream_usage", "include_usage"), "a stream's end always brings its figures; leave it out"
    ),
    "stream": "whether to stream is not an option of the model; call what streams",
    "reasoning_effort": "how long to think is not an option of these models; ask for it in the prompt",
}


def unknown_option(name: str, value: object, known: Iterable[str], where: object = "") -> Message:
    """The answer to an option that a host does not have.

    :param known: the options that it has, under the engine's names.
    :param where: what has them, such as " of a call".
    """
    known = frozenset(known)
    told = message("unknown option {}={}{}", name, shown(value), where)
    other = RENAMED.get(name)
    if other is not None and other in known:
        return message("{}: here it is {}", told, Option(other))
    if name in REASONS:
        return message("{}: {}", told, REASONS[name])
    original = answer(name, value)
    if original is not None:
        return message("unknown option{}: {}", where, original)
    return message("{}; known options: {}", told, listed(known))
