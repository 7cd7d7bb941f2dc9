#!/usr/bin/env bash
# transformers 5.24.0, `transformers serve`: a request's `temperature` and `top_p` are accepted, answered with 200 and
# without effect for a model whose generation_config does not say `do_sample`. The server writes the numbers into the
# config and never switches sampling on (only temperature 0 switches it off), so temperature 1.5 gives the greedy answer
# every time. `do_sample` in the request's own field `generation_config` makes the same server draw.
# Guessed: as every server of this protocol does, a temperature above 0 draws.
set -euo pipefail
work=$(mktemp -d)
trap '[[ -n "${server:-}" ]] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "transformers[serving]==5.24.0" torch==2.13.0 numpy
"$work/venv/bin/python" - "$work/model" <<'PYTHON' 2>/dev/null
import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

names = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
rules = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<s>"))
rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
tokenizer.save_pretrained(sys.argv[1])
torch.manual_seed(0)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
LlamaForCausalLM(LlamaConfig(vocab_size=28, bos_token_id=0, eos_token_id=1, **shape)).save_pretrained(sys.argv[1])
PYTHON
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
HF_HOME="$work/home" HF_HUB_OFFLINE=1 "$work/venv/bin/transformers" serve --host 127.0.0.1 --port "$port" >"$work/log" 2>&1 &
server=$!
"$work/venv/bin/python" - "$port" "$work/model" <<'PYTHON'
import json
import sys
import time
import urllib.request

port, model = sys.argv[1:]


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=120) as answer:
        return json.loads(answer.read())


for _ in range(120):
    try:
        ask("/health")
        break
    except OSError:
        time.sleep(1)


def answers(**options):
    body = {"model": model, "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 12, **options}
    return {ask("/v1/chat/completions", body)["choices"][0]["message"]["content"] for _ in range(4)}


drawing = json.dumps({"do_sample": True, "temperature": 1.5, "max_new_tokens": 12})
greedy, hot, drawn = answers(temperature=0.0), answers(temperature=1.5, top_p=0.9), answers(generation_config=drawing)
print("temperature 0:           ", len(greedy), "answer of 4 requests")
print("temperature 1.5:         ", len(hot), "answer of 4 requests, the same:", hot == greedy)
print("do_sample in its own field:", len(drawn), "answers of 4 requests")
assert hot == greedy and len(greedy) == 1 and len(drawn) > 1, "changed since transformers 5.24.0"
PYTHON
