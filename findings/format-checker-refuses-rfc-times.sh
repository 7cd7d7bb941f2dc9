#!/usr/bin/env bash
# jsonschema 4.26.0 without extras: FormatChecker() tests the format "time" by the rule of draft 3, HH:MM:SS and nothing
# else, whatever draft the schema is of. So it refuses every time that RFC 3339 and draft 2020-12 want ("12:34:56Z") and
# takes the one that they do not ("12:34:56"). The draft's own checker, Draft202012Validator.FORMAT_CHECKER, does not
# test "time" at all and takes "noon".
# Guessed: without the extra for RFC 3339 neither tests times, as neither tests "date-time"; nothing valid is refused.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check jsonschema==4.26.0
cat > "$work/show.py" <<'PYTHON'
from jsonschema import Draft202012Validator, FormatChecker

for case in ("time 12:34:56Z", "time 12:34:56+01:00", "time 12:34:56", "time noon", "date-time noon"):
    form, text = case.split()
    said = []
    for checker in (FormatChecker(), Draft202012Validator.FORMAT_CHECKER):
        validator = Draft202012Validator({"type": "string", "format": form}, format_checker=checker)
        said.append("valid" if validator.is_valid(text) else "refused")
    print(f"{case}: FormatChecker() {said[0]}, the draft's own {said[1]}")
PYTHON
"$work/venv/bin/python" "$work/show.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since jsonschema 4.26.0"; exit 1; }
time 12:34:56Z: FormatChecker() refused, the draft's own valid
time 12:34:56+01:00: FormatChecker() refused, the draft's own valid
time 12:34:56: FormatChecker() valid, the draft's own valid
time noon: FormatChecker() refused, the draft's own valid
date-time noon: FormatChecker() valid, the draft's own valid
SEEN
