"""`generate(custom_generate=block_diffusion)` on the tiny model."""

from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers import GenerationConfig

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError

PROMPT = torch.tensor([[5, 9, 77, 120, 33]])


def engine_answer(tiny: Model, prompt: list[int], **options: Any) -> list[int]:
    """What the engine generates, the end-of-text token included."""
    finish = tiny.engine().generate([Request(prompt, SamplingConfig(**options))])[0]
    return [*finish.tokens, *([] if finish.stop_token is None else [finish.stop_token])]


@pytest.mark.parametrize("mode", ["speculative", "ar"])
def test_greedy_equals_plain_generate(model: Any, strategy: partial[Tensor], mode: str) -> None:
    """In float32 the lossless modes give transformers' own greedy ids."""
    for seed in range(4):
        prompt = torch.randint(3, 250, (1, 7), generator=torch.Generator().manual_seed(seed))
        plain = model.generate(prompt, max_new_tokens=40, do_sample=False, pad_token_id=0)
        ours = model.generate(
            prompt, max_new_tokens=40, do_sample=False, pad_token_id=0, custom_generate=strategy, mode=mode
        )
        assert ours.tolist() == plain.tolist()


def test_options_and_config_reach_the_engine(model: Any, strategy: partial[Tensor], tiny: Model) -> None:
    """Explicit arguments first, then the generation config."""
    expected = engine_answer(tiny, PROMPT[0].tolist(), mode="diffusion", threshold=0.3, max_new_tokens=24)
    ours = model.generate(
        PROMPT, max_new_tokens=24, do_sample=False, custom_generate=strategy, mode="diffusion", threshold=0.3
    )
    assert ours[0, 5:].tolist() == expected
    config = GenerationConfig(
        max_new_tokens=24, do_sample=False, mode="diffusion", threshold=0.9, eos_token_id=2, pad_token_id=0
    )
    ours = model.generate(PROMPT, generation_config=config, custom_generate=partial(strategy, threshold=0.3))
    assert ours[0, 5:].tolist() == expected


def test_sampling_with_seeds(model: Any, strategy: partial[Tensor], tiny: Model) -> None:
    """Temperature, top-k, top-p and seed; without a seed, torch's generator decides."""
    sampled: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.9, "max_new_tokens": 20}
    options: dict[str, Any] = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "max_new_tokens": 20}
    ours = model.generate(PROMPT, custom_generate=strategy, seed=11, num_return_sequences=2, pad_token_id=0, **sampled)
    for row, seed in enumerate((11, 12)):
        expected = engine_answer(tiny, PROMPT[0].tolist(), seed=seed, **options)
        assert ours[row, 5 : 5 + len(expected)].tolist() == expected
    torch.manual_seed(3)
    first = model.generate(PROMPT, custom_generate=strategy, **sampled)
    torch.manual_seed(3)
    assert model.generate(PROMPT, custom_generate=strategy, **sampled).tolist() == first.tolist()


def test_left_padded_batch_equals_rows_alone(model: Any, strategy: partial[Tensor], tiny: Model) -> None:
    """Unequal prompts; answers padded on the right, end-of-text kept, several ids ending an answer."""
    prompts = [[5, 9, 77], [40, 41, 42, 43, 44, 45, 46], [200]]
    stops = [2, *engine_answer(tiny, prompts[0], max_new_tokens=24)[4:5]]
    ids = torch.tensor([[0] * (7 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (7 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ours = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=0,
        custom_generate=strategy,
    )
    assert ours[:, :7].tolist() == ids.tolist()
    for row, prompt in enumerate(prompts):
        whole = engine_answer(tiny, prompt, max_new_tokens=24)
        ends = [place for place, token in enumerate(whole) if token in stops]
        expected = whole[: ends[0] + 1] if ends else whole
        answer = ours[row, 7:].tolist()
        assert answer == expected + [0] * (len(answer) - len(expected))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"mode": "diffusion", "no_repeat_ngram_size": 2}, "no_repeat_ngram_size=2 .*mode='ar'"),
        ({"mode": "diffusion", "bad_words_ids": [[3, 4]]}, r"bad_words_ids of several tokens.*\[3, 4\]"),
        ({"mode": "diffusion", "suppress_tokens": [3]}, r"suppress_tokens=\[3\].*mode='ar'"),
        ({"mode": "diffusion", "logits_processor": [print]}, "builtin_function_or_method.*mode='ar'"),
        ({"do_sample": True, "min_p": 0.1}, "min_p=0.1"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"use_cache": False}, "use_cache"),
        ({"logits_to_keep": 3}, "logits_to_keep"),
        ({"position_ids": torch.tensor([[3, 4, 5, 6, 7]])}, "position_ids"),
        ({"assistant_model": "another"}, "assistant_model"),
        ({"prefix_allowed_tokens_fn": print}, "PrefixConstrained|prefix_allowed"),
        ({"synced_gpus": True}, "synced_gpus"),
        ({"output_hidden_states": True}, "output_hidden_states"),
        ({"inputs": None, "inputs_embeds": torch.zeros(1, 3, 64)}, "inputs_embeds"),
        ({"stop_strings": "x"}, "tokenizer=tokenizer"),
        ({"mode": "telepathy"}, "telepathy"),
        ({"mode": "ar", "threshold": 0.5}, "threshold"),
        ({"output_attentions": True}, "output_attentions"),
    ],
)
def test_what_is_not_honoured_raises(
    model: Any, strategy: partial[Tensor], options: dict[str, Any], words: str
) -> None:
    """Nothing is silently ignored."""
    with pytest.raises(DllmError, match=words):
        model.generate(**{"inputs": PROMPT, "max_new_tokens": 8, "custom_generate": strategy, **options})


def test_a_kwarg_nobody_knows_raises(model: Any, strategy: partial[Tensor]) -> None:
    """transformers itself refuses it, because every option of the strategy is a named parameter."""
    with pytest.raises(ValueError, match="telepathy"):
        model.generate(PROMPT, max_new_tokens=8, custom_generate=strategy, telepathy=3)


def test_max_length_and_budget_are_kept(model: Any, strategy: partial[Tensor]) -> None:
    """A canvas never overshoots: exactly as many tokens as asked for, in every mode."""
    for mode in ("speculative", "diffusion", "ar", "alternating"):
        for limit in ({"max_new_tokens": 5}, {"max_length": 10}):
            ours = model.generate(
                PROMPT, do_sample=False, eos_token_id=None, custom_generate=strategy, mode=mode, pad_token_id=0, **limit
            )
            assert ours.shape == (1, 10)


def test_foreign_prefix_and_padding_raise(model: Any, strategy: partial[Tensor]) -> None:
    """A filled cache and padding on the right."""
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    filled = {name: DynamicCache()}
    model(PROMPT[:, :3], **filled)
    with pytest.raises(DllmError, match=f"{name} holds a prefix"):
        model.generate(PROMPT, **filled, max_new_tokens=8, custom_generate=strategy)
    with pytest.raises(DllmError, match="padding_side"):
        model.generate(
            PROMPT, attention_mask=torch.tensor([[1, 1, 1, 0, 0]]), max_new_tokens=8, custom_generate=strategy
        )


def test_changed_weights_are_noticed(model: Any, strategy: partial[Tensor]) -> None:
    """The engine's view is made anew after an update in place."""
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    before = model.generate(PROMPT, custom_generate=strategy, **options)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.down_proj.weight").mul_(-3.0)
    after = model.generate(PROMPT, custom_generate=strategy, **options)
    assert after.tolist() == model.generate(PROMPT, **options).tolist()
    assert after.tolist() != before.tolist()


def test_other_families_are_refused(strategy: partial[Tensor]) -> None:
    """With the name of what does not fit."""
    from transformers import GPT2Config
    from transformers import GPT2LMHeadModel

    other: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=300))
    with pytest.raises(CheckpointError, match="gpt2"):
        other.generate(PROMPT, max_new_tokens=4, custom_generate=strategy, pad_token_id=0)
