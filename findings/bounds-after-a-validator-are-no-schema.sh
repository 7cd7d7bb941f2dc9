#!/usr/bin/env bash
# pydantic 2.14.4: a bound of a number that stands after an AfterValidator, or over a union of two number types, comes
# into the JSON schema by its Python name ("ge", "multiple_of") instead of "minimum" and "multipleOf". Validators ignore
# words they do not know, so jsonschema 4.26.0 accepts what pydantic refuses, and a decoder that is held to the schema
# writes it. max_length in the same place is translated. The bound before the AfterValidator is "minimum" again.
# Guessed: the order changes what is checked first, not the schema; or a bound that cannot be said is left out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pydantic==2.14.4 jsonschema==4.26.0
cat > "$work/show.py" <<'PYTHON'
from typing import Annotated

from jsonschema import Draft202012Validator
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError


def same(value):
    return value


def verdicts(adapter, value):
    schema = Draft202012Validator(adapter.json_schema()).is_valid(value)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return "refused", "valid" if schema else "refused"
    return "valid", "valid" if schema else "refused"


for name, kind, value in (
    ("bound, validator", Annotated[int, Field(ge=3), AfterValidator(same)], 1),
    ("validator, bound", Annotated[int, AfterValidator(same), Field(ge=3)], 1),
    ("validator, multiple", Annotated[int, AfterValidator(same), Field(multiple_of=3)], 1),
    ("union, bound", Annotated[int | float, Field(gt=0)], -1),
    ("validator, length", Annotated[str, AfterValidator(same), Field(max_length=3)], "four"),
):
    adapter = TypeAdapter(kind)
    own, schema = verdicts(adapter, value)
    print(f"{name}: {adapter.json_schema()}; {value!r}: pydantic {own}, schema {schema}")
PYTHON
"$work/venv/bin/python" "$work/show.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since pydantic 2.14.4"; exit 1; }
bound, validator: {'minimum': 3, 'type': 'integer'}; 1: pydantic refused, schema refused
validator, bound: {'ge': 3, 'type': 'integer'}; 1: pydantic refused, schema valid
validator, multiple: {'multiple_of': 3, 'type': 'integer'}; 1: pydantic refused, schema valid
union, bound: {'anyOf': [{'type': 'integer'}, {'type': 'number'}], 'gt': 0}; -1: pydantic refused, schema valid
validator, length: {'maxLength': 3, 'type': 'string'}; 'four': pydantic refused, schema refused
SEEN
