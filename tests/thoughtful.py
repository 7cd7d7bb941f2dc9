"""The tiny model with a chat template that marks thinking."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

#: Ordinary tokens that make room for marks: the bytes 0 and 1 as byte-level vocabularies spell them.
_ROOM = ("\u0100", "\u0101")


def thoughtful(tiny_folder: Path, place: Path, template: str, special: Sequence[str] = ()) -> Path:
    """A copy of the base folder.

    :param special: two marks that become special tokens; without them marks are texts.
    """
    shutil.copytree(tiny_folder, place)
    (place / "chat_template.jinja").write_text(template)
    config = json.loads((place / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (place / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    for text, letter in zip(special, _ROOM, strict=False):
        number = ids[text] = ids.pop(letter)
        kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        tokenizer["added_tokens"].append({"id": number, "content": text, **kind})
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))
    return place
