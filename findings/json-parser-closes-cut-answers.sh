#!/usr/bin/env bash
# langchain-core 1.8.3: JsonOutputParser().invoke of an answer that was cut off closes it and returns it as if it were
# whole, also where the message says finish_reason "length". A number that was cut is another number (1250 becomes 12),
# a text ends early, a key without its value is gone. parse_result with partial=False, which invoke uses
# and whose documentation promises "the full JSON object", has the lenient reader of partial=True.
# PydanticOutputParser builds on it: if every required field has begun, the cut answer is a valid object.
# Guessed: OutputParserException; closing is for streams, that is for `transform` and partial=True.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check langchain-core==1.8.3
cat > "$work/show.py" <<'PYTHON'
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from pydantic import BaseModel


class Payment(BaseModel):
    to: str
    amount: int


whole = '{"to": "Ann", "amount": 1250}'
for length in (len(whole), -3, -6, -19):
    text = whole[:length]
    message = AIMessage(text, response_metadata={"finish_reason": "length" if length < 0 else "stop"})
    print(text, "->", JsonOutputParser().invoke(message))
print("as an object:", repr(PydanticOutputParser(pydantic_object=Payment).invoke(whole[:-3])))
PYTHON
"$work/venv/bin/python" "$work/show.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since langchain-core 1.8.3"; exit 1; }
{"to": "Ann", "amount": 1250} -> {'to': 'Ann', 'amount': 1250}
{"to": "Ann", "amount": 12 -> {'to': 'Ann', 'amount': 12}
{"to": "Ann", "amount": -> {'to': 'Ann'}
{"to": "An -> {'to': 'An'}
as an object: Payment(to='Ann', amount=12)
SEEN
