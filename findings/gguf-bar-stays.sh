#!/usr/bin/env bash
# transformers 5.24.0 with gguf 0.19.0 and torch 2.13.0: after `transformers.utils.logging.disable_progress_bar()` a
# model from an ordinary checkpoint loads in silence, and one from a GGUF file still draws "Converting and de-quantizing GGUF
# tensors..." on standard error: that loop takes its bar from tqdm itself. TQDM_DISABLE=1 in the environment silences it.
# Guessed: the switch of the library holds for every way of loading that the library has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    transformers==5.24.0 torch==2.13.0 gguf==0.19.0 accelerate==1.15.0 numpy
cat > "$work/make.py" <<'PYTHON'
import sys

import numpy as np
from gguf import GGUFWriter
from transformers import LlamaConfig, LlamaForCausalLM

width, rows = 32, 8
shape = dict(hidden_size=width, intermediate_size=width, num_attention_heads=2, num_key_value_heads=2)
LlamaForCausalLM(LlamaConfig(vocab_size=rows, num_hidden_layers=1, **shape)).save_pretrained(sys.argv[1] + "/plain")
writer = GGUFWriter(sys.argv[1] + "/tiny.gguf", "llama")
writer.add_context_length(64)
writer.add_embedding_length(width)
writer.add_block_count(1)
writer.add_feed_forward_length(width)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_vocab_size(rows)
writer.add_tensor("token_embd.weight", np.ones((rows, width), np.float32))
writer.add_tensor("output.weight", np.ones((rows, width), np.float32))
writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    writer.add_tensor(f"blk.0.{name}.weight", np.ones((width, width), np.float32))
for name in ("attn_norm", "ffn_norm"):
    writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PYTHON
cat > "$work/load.py" <<'PYTHON'
import sys

from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()
options = {"gguf_file": sys.argv[2]} if len(sys.argv) > 2 else {}
print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1], **options)).__name__)
PYTHON
"$work/venv/bin/python" "$work/make.py" "$work" 2>/dev/null
for how in plain gguf "gguf TQDM_DISABLE=1"; do
    files=("$work/plain")
    [[ $how == gguf* ]] && files=("$work" tiny.gguf)
    variables=()
    [[ $how == *TQDM* ]] && variables=("TQDM_DISABLE=1")
    env "${variables[@]}" "$work/venv/bin/python" "$work/load.py" "${files[@]}" >/dev/null 2>"$work/said"
    count=$(grep -c "de-quantizing GGUF tensors" "$work/said" || true)
    echo "$how: $([[ $count -gt 0 ]] && echo a bar || echo silent)"
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since transformers 5.24.0"; exit 1; }
plain: silent
gguf: a bar
gguf TQDM_DISABLE=1: silent
SEEN
