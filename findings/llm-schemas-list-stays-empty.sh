#!/usr/bin/env bash
# llm 0.36: `llm schemas list` shows nothing after prompts with --schema, although they were logged and the database
# holds their schema: `llm schemas show ID` prints it, and `llm logs --schema ID` finds the answers. The list counts the
# rows of the table `responses`; prompts are logged in the table `turns`, and the other one stays empty.
# Guessed: one entry for the schema, used twice.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check llm==0.36
mkdir "$work/plugin" "$work/user"
cat > "$work/plugin/pyproject.toml" <<'TOML'
[build-system]
requires = ["setuptools==80.9.0"]
build-backend = "setuptools.build_meta"

[project]
name = "llm-ann"
version = "0"
entry-points.llm.ann = "llm_ann"

[tool.setuptools]
py-modules = ["llm_ann"]
TOML
cat > "$work/plugin/llm_ann.py" <<'PYTHON'
import llm


class Ann(llm.Model):
    model_id = "ann"
    supports_schema = True

    def execute(self, prompt, stream, response, conversation):
        yield '{"name": "Ann", "age": 7}'


@llm.hookimpl
def register_models(register):
    register(Ann())
PYTHON
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work/plugin"
export LLM_USER_PATH="$work/user"
own() { "$work/venv/bin/llm" "$@"; }
own --model ann --schema 'name, age int' 'a person' >/dev/null
own --model ann --schema 'name, age int' 'another' >/dev/null
cat > "$work/held.py" <<'PYTHON'
import sqlite3
import sys

print(*sqlite3.connect(sys.argv[1]).execute("select count(*), max(id) from schemas").fetchone())
PYTHON
read -r held id <<<"$("$work/venv/bin/python" "$work/held.py" "$work/user/logs.db")"
{
    echo "schemas in the database: $held"
    echo "schemas show, its required: $(own schemas show "$id" | tr -d ' \n' | grep -o '"required":.*]')"
    echo "answers that logs finds by the schema: $(own logs --schema "$id" --data | grep -c Ann)"
    echo "schemas list: $(own schemas list --json)"
} | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since llm 0.36"; exit 1; }
schemas in the database: 1
schemas show, its required: "required":["name","age"]
answers that logs finds by the schema: 2
schemas list: []
SEEN
