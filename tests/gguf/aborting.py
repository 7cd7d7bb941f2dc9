"""What aborts the whole process, done with llama.cpp alone: `python aborting.py CASE FILE`."""

import sys
from typing import Any

import llama_cpp as lib


def context(path: str, **sizes: int) -> Any:
    """A context of 2 separate streams, unless told otherwise."""
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    settings = {"n_ctx": 1024, "n_batch": 32, "n_ubatch": 32, "n_seq_max": 2, "n_threads": 1, "n_threads_batch": 1}
    for name, value in (settings | {"flash_attn_type": 0} | sizes).items():
        setattr(params, name, value)
    return lib.llama_init_from_model(model, params)


def decode(made: Any, count: int, *, causal: bool) -> int:
    """So many tokens of stream 0, all wanted."""
    batch = lib.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for place in range(count):
        batch.token[place], batch.pos[place], batch.n_seq_id[place], batch.logits[place] = 1, place, 1, 1
        batch.seq_id[place][0] = 0
    lib.llama_set_causal_attn(made, causal)
    return int(lib.llama_decode(made, batch))


def main(case: str, path: str) -> None:
    """Run one case; it should not come back."""
    if case == "block longer than a micro-batch":
        decode(context(path, n_batch=64), 48, causal=False)
    elif case in ("more tokens than a batch", "canvas longer than a micro-batch"):
        decode(context(path), 48, causal=True)
    elif case == "more rows than outputs":
        decode(context(path, n_outputs_max=4), 16, causal=True)
    elif case == "more streams than tokens":
        context(path, n_seq_max=64)
    elif case == "copy of a part of a stream":
        made = context(path)
        decode(made, 16, causal=True)
        lib.llama_memory_seq_cp(lib.llama_get_memory(made), 0, 1, 0, 8)
    elif case == "stream that does not exist":
        lib.llama_memory_seq_rm(lib.llama_get_memory(context(path)), 300, 0, -1)
    elif case == "value that no model has":
        decode(context(path), 4, causal=True)
    print("came back")


if __name__ == "__main__":
    main(*sys.argv[1:])
