#!/usr/bin/env bash
# tokenizers 0.23.3, a tokenizer with the normalizer of Llama 2 (a mark in front of the text, and one for every space):
# a token added as a plain text, with the default settings, goes through that normalizer as well. It becomes the text
# with the mark in front, also for id_to_token, and is found at the beginnings of words only; inside a word it is unknown.
# Guessed: an added token is found wherever its text stands, and id_to_token gives the text that was added.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check tokenizers==0.23.3
cat > "$work/show.py" <<'PYTHON'
from tokenizers import AddedToken, Tokenizer, models, normalizers

for added in ("q!", AddedToken("q!", normalized=False)):
    vocabulary = {text: number for number, text in enumerate(["<unk>", "▁", "a", "▁a"])}
    backend = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.add_tokens([added])
    print(backend.id_to_token(4), backend.encode("q!").tokens, backend.encode("a q!").tokens, backend.encode("aq!").tokens)
PYTHON
"$work/venv/bin/python" "$work/show.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since tokenizers 0.23.3"; exit 1; }
▁q! ['▁q!'] ['▁a', '▁q!'] ['▁a', '<unk>', '<unk>']
q! ['q!'] ['▁a', '▁', 'q!'] ['▁a', 'q!']
SEEN
