"""Answers held to JSON schemas: ours beside constrained autoregression in transformers, and beside no constraint.

Same weights, prompts and schemas, greedy, one request at a time. The baselines are transformers' generate with a
logits processor that masks by outlines-core, or by llguidance; what is compiled for a schema is compiled before the
clock starts, for all of them. Every answer is checked by jsonschema. `constraint_share` is what the constraint takes
of the milliseconds of a pass.
"""

import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from default_model import chat
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.constraints.validation import validated
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.engine.profile import CONSTRAINT
from dllm_plugins.errors import AnswerError
from dllm_plugins.text.pieces import pieces_of
from harness import Answer
from harness import Decode
from harness import Row
from harness import compared
from harness import table
from passes import measured
from passes import put
from progress import keep
from progress import show

_TEXT: dict[str, Any] = {"type": "string", "maxLength": 40}
SCHEMAS: dict[str, dict[str, Any]] = {
    "Describe a person you make up, as JSON.": {
        "type": "object",
        "properties": {
            "name": _TEXT,
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "occupation": _TEXT,
            "hobbies": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "age", "occupation", "hobbies"],
        "additionalProperties": False,
    },
    "Extract the order from this mail as JSON: 'Please send two blue lamps to Anna Berg, 12 Mill Lane, York.'": {
        "type": "object",
        "properties": {
            "customer": _TEXT,
            "item": _TEXT,
            "colour": {"enum": ["red", "green", "blue", "other"]},
            "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
            "address": {
                "type": "object",
                "properties": {"street": _TEXT, "city": _TEXT},
                "required": ["street", "city"],
                "additionalProperties": False,
            },
        },
        "required": ["customer", "item", "colour", "quantity", "address"],
        "additionalProperties": False,
    },
    "Is this review positive? 'The lamp broke after a day.' Answer as JSON with sentiment, confidence and reason.": {
        "type": "object",
        "properties": {
            "sentiment": {"enum": ["positive", "neutral", "negative"]},
            "confidence": {"enum": ["low", "medium", "high"]},
            "reason": _TEXT,
        },
        "required": ["sentiment", "confidence", "reason"],
        "additionalProperties": False,
    },
    "Call the weather tool for Paris, in Celsius, for three days. Answer with the call as JSON.": {
        "type": "object",
        "properties": {
            "tool": {"const": "get_weather_forecast"},
            "arguments": {
                "type": "object",
                "properties": {
                    "location": _TEXT,
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 14},
                },
                "required": ["location", "unit", "days"],
                "additionalProperties": False,
            },
        },
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    },
}
#: Masks the logits [V] of the next token, given the tokens of the answer so far.
Masking = Callable[[Sequence[int], Tensor], Tensor]


def ours(model: Model, tokens: int, *, free: bool = False, **options: Any) -> Decode:
    """Our engine; without a constraint if `free`, to as many tokens as the longest answer may have."""

    def decode(prompt: str) -> Answer:
        constraint = None if free else JsonSchema(SCHEMAS[prompt])
        config = SamplingConfig(max_new_tokens=tokens, constraint=constraint, **options)
        finish = model.engine().generate([Request(model.encode_chat(chat(prompt)), config)])[0]
        return Answer(finish.text, len(finish.tokens), finish.usage.total_passes, finish.usage.rows)

    return decode


def outlines_masking(model: Model) -> Callable[[dict[str, Any]], Callable[[], Masking]]:
    """outlines-core: an index of the schema's regular expression over the vocabulary."""
    from outlines_core import Guide
    from outlines_core import Index
    from outlines_core import Vocabulary
    from outlines_core.json_schema import build_regex_from_schema
    from outlines_core.kernels.torch import allocate_token_bitmask

    spec = model.denoiser.spec
    texts: dict[bytes, list[int]] = {}
    for token, piece in enumerate(pieces_of(model.tokenizer, spec.vocabulary).texts):
        if piece is not None and token not in spec.stop_ids:
            texts.setdefault(piece, []).append(token)
    vocabulary = Vocabulary(min(spec.stop_ids), texts)

    def compiled(schema: dict[str, Any]) -> Callable[[], Masking]:
        # With a bound on the length of texts it would compile for minutes, or run out of memory.
        index = Index(build_regex_from_schema(json.dumps(_without_bounds(schema))), vocabulary)

        def begin() -> Masking:
            guide, words, read = Guide(index), allocate_token_bitmask(spec.vocabulary), [0]

            def mask(answer: Sequence[int], logits: Tensor) -> Tensor:
                for token in answer[read[0] :]:
                    guide.advance(token, return_tokens=False)
                read[0] = len(answer)
                guide.write_mask_into(words.data_ptr(), words.numel(), words.element_size())
                return logits.masked_fill(~_bits(words, len(logits)), -torch.inf)

            return mask

        return begin

    return compiled


def llguidance_masking(model: Model) -> Callable[[dict[str, Any]], Callable[[], Masking]]:
    """llguidance: a matcher that is asked before every token."""
    import llguidance.hf
    import llguidance.torch
    from llguidance import LLMatcher

    spec = model.denoiser.spec
    tokenizer = llguidance.hf.from_tokenizer(model.tokenizer.in_transformers, n_vocab=spec.vocabulary)

    def compiled(schema: dict[str, Any]) -> Callable[[], Masking]:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})

        def begin() -> Masking:
            matcher, read = LLMatcher(tokenizer, grammar), [0]
            words = llguidance.torch.allocate_token_bitmask(1, spec.vocabulary)

            def mask(answer: Sequence[int], logits: Tensor) -> Tensor:
                matcher.consume_tokens(list(answer[read[0] :]))
                read[0] = len(answer)
                llguidance.torch.fill_next_token_bitmask(matcher, words, 0)
                return logits.masked_fill(~_bits(words, len(logits)), -torch.inf)

            return mask

        return begin

    return compiled


def _bits(words: Tensor, size: int) -> Tensor:
    """The bits of int32 words, lowest first; bool [size]."""
    shifts = torch.arange(32, dtype=torch.int32)
    return ((words.reshape(-1, 1) >> shifts) & 1).bool().reshape(-1)[:size]


def _without_bounds(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _without_bounds(value) for name, value in schema.items() if name not in _BOUNDS}
    return [_without_bounds(value) for value in schema] if isinstance(schema, list) else schema


_BOUNDS = ("maxLength", "minimum", "maximum")


def transformers_masked(
    model: Model, network: Any, tokens: int, masking: Callable[[dict[str, Any]], Callable[[], Masking]]
) -> Decode:
    """Transformers' own greedy generate, held to the schema of each prompt."""
    from transformers import LogitsProcessorList

    begins = {prompt: masking(schema) for prompt, schema in SCHEMAS.items()}
    stops = model.denoiser.spec.stop_ids

    def decode(prompt: str) -> Answer:
        ids = torch.tensor([model.encode_chat(chat(prompt))])
        mask = begins[prompt]()

        def process(found: Tensor, scores: Tensor) -> Tensor:
            return mask(found[0, ids.shape[1] :].tolist(), scores[0])[None]

        with torch.inference_mode():
            found = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=min(stops),
                logits_processor=LogitsProcessorList([process]),
            )
        new = found[0, ids.shape[1] :].tolist()
        answer = new[:-1] if new[-1] in stops else new
        return Answer(model.tokenizer.decode(answer, skip_special_tokens=True), len(answer), len(new))

    return decode


@dataclass(frozen=True)
class Checked:
    """Counts the answers of a contestant that jsonschema accepts."""

    decode: Decode
    counts: dict[str, int]

    def __call__(self, prompt: str) -> Answer:
        """Answer, and count."""
        answer = self.decode(prompt)
        self.counts["answers"] = self.counts.get("answers", 0) + 1
        try:
            validated(answer.text, SCHEMAS[prompt])
        except AnswerError:
            return answer
        self.counts["valid"] = self.counts.get("valid", 0) + 1
        return answer


def share(model: Model, tokens: int) -> Row:
    """What the constraint takes of a pass, beside all of the pass; over all schemas, twice each."""
    parts: dict[str, float] = {}
    passes = made = 0
    for prompt in [*SCHEMAS, *SCHEMAS]:
        config = SamplingConfig(max_new_tokens=tokens, constraint=JsonSchema(SCHEMAS[prompt]), stats=True)
        finish = model.engine().generate([Request(model.encode_chat(chat(prompt)), config)])[0]
        passes, made = passes + finish.usage.total_passes, made + len(finish.tokens)
        for name, seconds in (finish.usage.parts or {}).items():
            parts[name] = parts.get(name, 0.0) + seconds
    whole = sum(seconds for name, seconds in parts.items() if "/" not in name)
    own = parts[CONSTRAINT]
    return Row(
        name="constraint_share",
        ours=round(1000 * own / passes, 3),
        baseline=round(1000 * whole / passes, 3),
        unit="ms/pass",
        ratio=round(own / whole, 3),
        tokens=made,
        passes=passes,
        tokens_per_forward=round(made / passes, 3),
        rows_per_token=0.0,
        baseline_tokens=made,
        baseline_passes=passes,
        same_answers=2 * len(SCHEMAS),
        answers=2 * len(SCHEMAS),
    )


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--tokens", default=120, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many.")
@click.option("--dtype", default="auto", show_default=True, help="Of our engine and of transformers.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(path: Path | None, tokens: int, rounds: int, dtype: str, page: Path | None) -> None:
    """Measure and print a table."""
    from transformers import AutoModelForCausalLM

    model = load_model("dllm", dtype=dtype)
    chosen = choose_dtype(dtype, torch.device("cpu"))
    network: Any = AutoModelForCausalLM.from_pretrained(require_base(), dtype=chosen, trust_remote_code=False)
    counts: dict[str, dict[str, int]] = {}

    def checked(name: str, decode: Decode) -> Decode:
        return Checked(decode, counts.setdefault(name, {}))

    everyone: Mapping[str, Decode] = {
        name: checked(name, decode)
        for name, decode in {
            "speculative": ours(model, tokens, mode="speculative"),
            "ar": ours(model, tokens, mode="ar"),
            "diffusion": ours(model, tokens, mode="diffusion"),
            "free": ours(model, tokens, free=True, mode="speculative"),
            "outlines_ar": transformers_masked(model, network, tokens, outlines_masking(model)),
            "llguidance_ar": transformers_masked(model, network, tokens, llguidance_masking(model)),
        }.items()
    }
    pairs = {
        "constrained_vs_outlines_ar": ("speculative", "outlines_ar"),
        "constrained_vs_llguidance_ar": ("speculative", "llguidance_ar"),
        "constrained_ar_vs_outlines_ar": ("ar", "outlines_ar"),
        "constrained_diffusion_vs_outlines_ar": ("diffusion", "outlines_ar"),
        "constrained_speculative_vs_ar": ("speculative", "ar"),
        "constrained_vs_unconstrained": ("speculative", "free"),
    }
    rows = compared(everyone, pairs, [*SCHEMAS], rounds, path)
    for name, found in counts.items():
        show(f"{name}: {found.get('valid', 0)} of {found['answers']} answers are valid")
    own = share(model, tokens)
    show("", f"constraint_share: {own.ours} of {own.baseline} ms a pass, {100 * own.ratio:.1f} %")
    keep([*rows, own], path)
    if page is not None:
        head = f"{measured()} {len(SCHEMAS)} prompts, at most {tokens} tokens, rounds: {rounds}, {chosen}."
        put(page, "constraints", f"{head}\n\n{table([*rows, own])}")


if __name__ == "__main__":
    main()
