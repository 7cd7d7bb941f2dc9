#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (llama.cpp's llama_model_quantize) with gguf 0.19.0: a quantised file holds a layer's tensors by
# the alphabet of their names, whatever order the source file had. So ffn_gate and ffn_up, which stand side by side in a
# converted file and could be multiplied as one matrix where they lie, have ffn_norm between them in the quantised one.
# Guessed: quantising changes the types of tensors and leaves their order.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check llama-cpp-python==0.3.36 gguf==0.19.0
cat > "$work/make.py" <<'PYTHON'
import ctypes
import sys

import llama_cpp
import numpy as np
from gguf import GGUFReader, GGUFWriter

ORDER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
folder, width = sys.argv[1], 256
source, target = folder + "/source.gguf", folder + "/target.gguf"
writer = GGUFWriter(source, "llama")
writer.add_context_length(64)
writer.add_embedding_length(width)
writer.add_block_count(1)
writer.add_feed_forward_length(width)
writer.add_head_count(4)
writer.add_head_count_kv(4)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_vocab_size(8)
writer.add_tensor("token_embd.weight", np.ones((8, width), np.float32))
for name in ORDER:
    shape = width if name.endswith("norm") else (width, width)
    writer.add_tensor(f"blk.0.{name}.weight", np.ones(shape, np.float32))
writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
writer.add_tensor("output.weight", np.ones((8, width), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
assert llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) == 0
for file in (source, target):
    names = [tensor.name.split(".")[2] for tensor in GGUFReader(file).tensors if tensor.name.startswith("blk.")]
    print(" ".join(names))
PYTHON
"$work/venv/bin/python" "$work/make.py" "$work" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since llama-cpp-python 0.3.36"; exit 1; }
attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down
attn_k attn_norm attn_output attn_q attn_v ffn_down ffn_gate ffn_norm ffn_up
SEEN
