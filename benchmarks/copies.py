"""Prompts whose answers repeat much of what they are given: rewriting, extraction, edits of code."""

_TEXT = (
    "The Rhine is a river in Europe. It begins in the Swiss Alps, flows along the border of France and Germany, passes "
    "Cologne, and reaches the North Sea in the Netherlands. It is about 1,230 kilometres long."
)
_CODE = """def total(items):
    result = 0
    for item in items:
        result += item.price * item.count
    return result
"""
COPIES = (
    f"Rewrite the following text in the past tense:\n\n{_TEXT}",
    f"Repeat the following text exactly:\n\n{_TEXT}",
    "Correct the spelling: 'I recieve alot of mesages evry day, and I answer al of them befor lunch.'",
    f"Rename the variable result to amount in this code and show the whole code:\n\n{_CODE}",
    f"Add a docstring to this function and show all of it:\n\n{_CODE}",
    f"Extract all places named in this text, one a line:\n\n{_TEXT}",
    "Copy this list sorted by name: Walter Brown, Alice Smith, Carol Jones, Bob Miller, Dora Fischer, Erik Hansen.",
    "Turn this into JSON with keys name, age and city: Maria Lopez is 34 years old and lives in Valencia. Peter Novak "
    "is 51 years old and lives in Prague. Anna Berg is 27 years old and lives in Oslo.",
)
