"""Originals that look at the whole canvas in every pass."""

from dllm_plugins.options.originals.base import DRAWING
from dllm_plugins.options.originals.base import HISTORY
from dllm_plugins.options.originals.base import PADS
from dllm_plugins.options.originals.base import RESULT
from dllm_plugins.options.originals.base import STOPS
from dllm_plugins.options.originals.base import TOTAL_LENGTH
from dllm_plugins.options.originals.base import TRANSFORMERS
from dllm_plugins.options.originals.base import original

_ALL_BLOCKS = (
    "steps | of the whole answer, a multiple of its blocks; one position a pass if every block gets its length"
)
_LLADA = {
    "gen_length": "max_new_tokens",
    "block_length": "block_length",
    "steps": _ALL_BLOCKS,
    "temperature": "temperature",
    "remasking": "rule | 'random', or 'quota' for 'low_confidence', which steps alone chooses",
    "mask_id": "loading.mask_id",
}
_FAST = {
    "threshold": "threshold | without steps, which have no effect beside it",
    "factor": "factor | without steps, which have no effect beside it",
}
_CACHED = {"use_cache": "approximate_cache | 'prefix' or 'dual'", "dual_cache": "approximate_cache | 'dual'"}
_SCHEDULE = {
    "steps": "steps | of the whole canvas; more than it has positions leave some passes without effect",
    "eps": "preset_options.eps",
    "alg": "preset_options.alg",
    "alg_temp": "preset_options.alg_temp",
    "mask_token_id": "loading.mask_id",
    "max_new_tokens": "max_new_tokens",
}
_DLLM = {
    "max_new_tokens": "max_new_tokens",
    "max_length": TOTAL_LENGTH,
    "block_size": "block_length",
    "steps": "steps | of the whole answer, a multiple of its blocks, where the original rounds up",
    "temperature": "temperature",
    "cfg_scale": "guidance",
    "cfg_keep_tokens": "preset_options.cfg_keep_tokens",
    "remasking": "preset_options.remasking",
    "scheduler": "preset_options.scheduler | 'linear' or 'cosine'",
    "stochastic_transfer": "preset_options.stochastic_transfer",
    "right_shift_logits": "preset_options.right_shift_logits",
    "return_dict": HISTORY,
}

ORIGINALS = (
    original(
        "LLaDA generate",
        "llada",
        _LLADA,
        cfg_scale="guidance",
        logits_eos_inf="preset_options.suppress_tokens | a list that holds the end of text",
        confidence_eos_eot_inf="preset_options.late_tokens | a list of the ends of text and of turns",
        is_mps="- noise is float64, made on the CPU",
        attention_mask=TRANSFORMERS["attention_mask"],
    ),
    original("Fast-dLLM v1 generate", "fast_dllm", _LLADA, _FAST, _CACHED),
    original("Fast-dLLM v1 generate_with_prefix_cache", "fast_dllm", _LLADA, _FAST, _CACHED),
    original("Fast-dLLM v1 generate_with_dual_cache", "fast_dllm", _LLADA, _FAST, _CACHED),
    original(
        "Dream diffusion_generate",
        "dream",
        _SCHEDULE,
        DRAWING,
        TRANSFORMERS,
        generation_tokens_hook_func=HISTORY,
        generation_logits_hook_func="- nothing is called back from a pass",
    ),
    original(
        "Open-dLLM diffusion_generate",
        "open_dcoder",
        _SCHEDULE,
        DRAWING,
        TRANSFORMERS,
        do_sample="temperature | above 0 draws; transformers' generate takes do_sample",
    ),
    original(
        "DreamOn batch_generate_with_expand_as_token",
        "dreamon",
        {name: text for name, text in _SCHEDULE.items() if name not in ("eps", "mask_token_id", "max_new_tokens")},
        DRAWING,
        steps="steps | most passes",
        eps="- one position is committed a pass",
        number_transfer_tokens="- one position is committed a pass",
        max_gen_len="max_new_tokens",
        min_gen_len="preset_options.min_gen_len",
        expand_budget="preset_options.expand_budget",
        pad_eos_to_right="preset_options.pad_eos_to_right",
        delete_eos_token="preset_options.delete_eos_token",
        max_tokens="max_new_tokens | without the text around it",
        pad_to_max_len=PADS,
        show_progress=HISTORY,
    ),
    original(
        "RND1 diffusion_sample",
        "rnd1",
        DRAWING,
        seq_len="max_new_tokens | without the prompt and what stands behind the answer",
        max_new_tokens="max_new_tokens",
        infill_length="max_new_tokens",
        num_steps="steps | of the whole canvas, at most",
        num_diffusion_steps="steps | of the whole canvas, at most",
        greedy="preset_options.greedy",
        eb_gamma="preset_options.eb_gamma",
        add_eos_at_end="preset_options.add_eos_at_end",
        pad_token_id="preset_options.pad_token_id",
        eos_token_id="preset_options.eos_token_id",
        bos_token_id=TRANSFORMERS["bos_token_id"],
        mask_token_id="loading.mask_id",
        prefix_ids="request.tokens",
        suffix_ids="request.suffix",
        visualizer=HISTORY,
    ),
    original(
        "DiffuLLaMA generate_samples",
        "diffullama",
        diffusion_steps="steps | of the whole canvas",
        logits_temp="temperature",
        topp_temp="top_p",
        gen_len="max_new_tokens",
        shift="- the family says it",
        verbose=HISTORY,
    ),
    original(
        "dllm MDLMSampler",
        "mdlm",
        _DLLM,
        suppress_tokens="preset_options.suppress_tokens",
        begin_suppress_tokens="preset_options.begin_suppress_tokens",
    ),
    original(
        "dllm BD3LMSampler",
        "bd3lm",
        _DLLM,
        steps_per_block="steps | of the whole answer: this times the number of its blocks",
    ),
    original(
        "DiffusionGemma generate",
        "diffusion_gemma",
        TRANSFORMERS,
        max_new_tokens="max_new_tokens",
        max_denoising_steps="steps | of a canvas, at most",
        sampler_config="preset_options.entropy_bound | its only field",
        entropy_bound="preset_options.entropy_bound",
        t_min="preset_options.t_min",
        t_max="preset_options.t_max",
        stability_threshold="preset_options.stability_threshold",
        confidence_threshold="preset_options.confidence_threshold",
        decoder_input_ids="preset_options.decoder_input_ids",
        seed="seed",
        return_dict_in_generate=RESULT,
        eos_token_id=STOPS,
        cache_implementation="- the cache is exact and the engine's own",
        disable_compile="loading.compile | True compiles, where the family allows it",
    ),
)
