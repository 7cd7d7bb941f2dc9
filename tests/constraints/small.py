"""A vocabulary so small that every completion of a canvas can be written out."""

STOP, CONTROL, MASK = 0, 1, 99
#: Tokens of one and of several letters, two that spell the same, halves of a character, an end and a control token.
PIECES = [None, None, b"a", b"b", b"ab", b"ba", b"aba", b"a", "é".encode()[:1], "é".encode()[1:], "é".encode(), b"aa"]


def encoded(text: str) -> list[int]:
    """The longest token first."""
    found, rest = [], text.encode()
    while rest:
        token = max(
            (token for token, piece in enumerate(PIECES) if piece and rest.startswith(piece)),
            key=lambda token: len(PIECES[token] or b""),
        )
        found.append(token)
        rest = rest[len(PIECES[token] or b"") :]
    return found
