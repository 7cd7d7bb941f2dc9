"""A tokenizer for tiny checkpoints that has no more tokens than the embedding, as llama.cpp wants it."""

import json
import shutil
from pathlib import Path


def give_tokenizer(place: Path, source: Path, *without: str) -> None:
    """Copy `source`'s tokenizer to a checkpoint, cut to its vocabulary; leave files of the names `without` out."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if name not in without:
            shutil.copy(source / name, place)
    file, size = place / "tokenizer.json", json.loads((place / "config.json").read_text())["vocab_size"]
    if file.exists():
        tokenizer = json.loads(file.read_text())
        vocabulary = tokenizer["model"]["vocab"]
        tokenizer["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number < size}
        file.write_text(json.dumps(tokenizer))
