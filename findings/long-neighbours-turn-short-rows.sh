#!/usr/bin/env bash
# transformers 5.24.0: with rotary positions of type "dynamic" or "longrope", the frequencies of a whole batch follow the
# longest position in it. A prompt that fits the original context is rotated by other frequencies as soon as a longer
# prompt stands beside it, so its logits change; beside a copy of itself, as much padded, they do not. A server that
# batches requests, and a diffusion sampler that forwards canvases of several requests together, give other answers in
# company than alone, and no attention mask or position id keeps them apart.
# Guessed: each row is rotated by its own length, since positions are given for each row.
# Seen in float64, largest difference of the last logits from those of the row alone: below 1e-15 beside a copy, 1e-4
# ("dynamic") and 9e-4 ("longrope") beside a longer row; "default" below 1e-15 beside both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0
cat > "$work/show.py" <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

KINDS = {
    "default": {},
    "dynamic": {"factor": 2.0},
    "longrope": {"factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 16},
}
SHORT, LONG = torch.arange(3, 11)[None], torch.arange(3, 43)[None]
padding = LONG.shape[1] - SHORT.shape[1]
padded = torch.cat([torch.zeros(1, padding, dtype=torch.long), SHORT], 1)
mask = torch.ones_like(LONG)
mask[:, :padding] = 0


def last(model, tokens, masks):
    """The last logits of the first row."""
    positions = (masks.cumsum(1) - 1).clamp(min=0)
    return model(tokens, attention_mask=masks, position_ids=positions).logits[0, -1]


for kind, options in KINDS.items():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64 if kind == "longrope" else 16,
        rope_parameters={"rope_type": kind, "rope_theta": 10000.0, **options},
    )
    model = LlamaForCausalLM(config).double().eval()
    with torch.no_grad():
        alone = model(SHORT).logits[0, -1]
        copy = last(model, torch.cat([padded, padded]), torch.cat([mask, mask]))
        longer = last(model, torch.cat([padded, LONG]), torch.cat([mask, torch.ones_like(mask)]))
    apart = [float((alone - other).abs().max()) for other in (copy, longer)]
    told = ["same" if difference < 1e-9 else "other" for difference in apart]
    print(f"{kind}: beside a copy {told[0]}, beside a longer row {told[1]}")
PYTHON
"$work/venv/bin/python" "$work/show.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since transformers 5.24.0"; exit 1; }
default: beside a copy same, beside a longer row same
dynamic: beside a copy same, beside a longer row other
longrope: beside a copy same, beside a longer row other
SEEN
