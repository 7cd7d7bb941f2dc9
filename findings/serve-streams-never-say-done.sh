#!/usr/bin/env bash
# transformers 5.24.0, `transformers serve`: a streamed chat completion has no last event `data: [DONE]`; the connection
# just ends behind the chunk that has the finish_reason. And that chunk carries the usage whether or not the request says
# `stream_options.include_usage`, beside its choice, where the protocol has a chunk of its own, without choices, only when
# asked. A client that takes `[DONE]` for the end, so as to tell a whole answer from one that a lost connection cut, takes
# every answer of this server for a cut one; one that reads the usage from the chunk without choices finds none.
# Guessed: streams end as those of every other server of this protocol do, and `include_usage` decides about usage.
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
{ "$work/venv/bin/python" - "$port" "$work/model" <<'PYTHON'
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


def stream(**options):
    body = {"model": model, "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 4, "stream": True, **options}
    url, kind = f"http://127.0.0.1:{port}/v1/chat/completions", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), kind), timeout=120) as answer:
        return [line.removeprefix("data: ") for line in answer.read().decode().splitlines() if line.startswith("data:")]


for name, options in {"unasked": {}, "asked": {"stream_options": {"include_usage": True}}}.items():
    told = stream(**options)
    done, chunks = "[DONE]" in told, [json.loads(line) for line in told if line != "[DONE]"]
    last = chunks[-1]
    where = ["beside a choice" if chunk["choices"] else "alone" for chunk in chunks if chunk.get("usage")]
    print(f"{name}: [DONE] {done}, last reason {last['choices'][0]['finish_reason']}, usage {', '.join(where) or 'nowhere'}")
PYTHON
} | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since transformers 5.24.0"; exit 1; }
unasked: [DONE] False, last reason length, usage beside a choice
asked: [DONE] False, last reason length, usage beside a choice
SEEN
