"""Which conversation a request belongs to, and which replica a conversation: where its prefix is kept.

Every turn of a conversation begins with the same messages. They are hashed, and the replicas ranked by a hash of that
and their names (rendezvous hashing), so that no router has to remember anything or to agree with another one, and a
replica that comes or goes moves its own conversations alone. One that is much busier than others is passed over, as in
consistent hashing with bounded loads (Mirrokni et al., arXiv 1608.01350).
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

#: How much of a prompt that is no chat says which it is: characters, or token ids.
_BEGINNING = 64


def conversation_of(body: bytes) -> str:
    """What all turns of a conversation have in common; "" where there is none.

    :param body: of a request to any of the interfaces, whatever it holds.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(asked, dict):
        return ""
    beginning = _beginning(asked)
    return sha256(json.dumps([asked.get("model"), beginning]).encode()).hexdigest() if beginning else ""


def ranked(conversation: str, queues: Mapping[str, int], lead: int) -> list[str]:
    """Replicas in the order in which a conversation is offered to them.

    :param queues: how many requests each has.
    :param lead: by how many a replica may be ahead of the least busy one before others are preferred.
    """
    found = sorted(queues, key=lambda name: sha256(f"{conversation} {name}".encode()).digest())
    most = min(queues.values(), default=0) + lead
    return sorted(found, key=lambda name: queues[name] > most)


def _beginning(asked: Mapping[str, Any]) -> Any:
    """The messages up to the first that a user says, or how a prompt begins."""
    if "prompt" in asked:
        prompt = asked["prompt"]
        several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
        first = prompt[0] if several else prompt
        return first[:_BEGINNING] if isinstance(first, str | list) else None
    told = asked.get("messages", asked.get("input"))
    if isinstance(told, str):
        told = [{"role": "user", "content": told}]
    instructions = asked.get("instructions")
    found = [["system", instructions]] if instructions else []
    for item in told if isinstance(told, list) else ():
        if isinstance(item, dict):
            found.append([item.get("role"), _text(item.get("content"))])
            if item.get("role") == "user":
                break
    return found


def _text(content: Any) -> Any:
    """What is said, however it is written: turns that an official client hands back come in parts."""
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
