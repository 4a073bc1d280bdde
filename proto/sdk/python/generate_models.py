#!/usr/bin/env python3
"""Generates fanfare_sdk/models.py from proto/openapi.json.

With a path as the argument, writes that file instead.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent
DOCUMENT = FOLDER.parent.parent / "openapi.json"
MODELS = FOLDER / "fanfare_sdk" / "models.py"
REFERENCE = "#/components/schemas/"

HEADER = '''\
"""Types of the Fanfare API. Generated from proto/openapi.json by generate_models.py: change neither by hand."""
'''

OPTIONS = [
    "--input-file-type=openapi",
    "--output-model-type=pydantic_v2.BaseModel",
    "--target-python-version=3.10",
    "--use-annotated",
    "--use-standard-collections",
    "--use-union-operator",
    "--use-schema-description",
    "--use-field-description",
    "--use-double-quotes",
    "--enum-field-as-literal=all",
    "--disable-timestamp",
    "--formatters=builtin",
]


def nullable(name: str, description: str) -> dict[str, Any]:
    return {"oneOf": [{"$ref": REFERENCE + name, "description": description}, {"type": "null"}]}


def as_text(schema: Any, texts: set[str]) -> Any:
    """Replaces the references to `texts` by plain texts."""
    if isinstance(schema, list):
        return [as_text(item, texts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref") in texts:
        return {"type": "string"} | {name: value for name, value in schema.items() if name != "$ref"}
    return {name: as_text(value, texts) for name, value in schema.items()}


def schemas() -> dict[str, Any]:
    """The schemas of the document, prepared for clients.

    The envelopes of answers and pages are left out, because `fanfare_sdk` reads both by generic types. Sets of texts
    become plain texts, so that a client reads the answers of later releases. The variants of `PublishedOrNot` become
    one type.
    """
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    kept: dict[str, Any] = {
        name: schema
        for name, schema in document["components"]["schemas"].items()
        if not name.startswith(("Answer_", "Page_"))
    }
    texts = {REFERENCE + name for name, schema in kept.items() if schema.get("type") == "string"}
    kept = {name: as_text(schema, texts) for name, schema in kept.items() if REFERENCE + name not in texts}
    kept["PublishedOrNot"] = {
        "type": "object",
        "description": kept["PublishedOrNot"]["description"],
        "required": ["success"],
        "properties": {
            "success": {"type": "boolean"},
            "data": nullable("Published", "The accepted event; `null` if the event is not accepted."),
            "error": nullable("Error", "The error of the event; `null` if the event is accepted."),
        },
    }
    return {
        "openapi": document["openapi"],
        "info": document["info"] | {"description": ""},
        "paths": {},
        "components": {"schemas": kept},
    }


def main() -> None:
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else MODELS
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "openapi.json"
        source.write_text(json.dumps(schemas()), encoding="utf-8")
        command = [sys.executable, "-m", "datamodel_code_generator", *OPTIONS]
        subprocess.run(
            [*command, f"--custom-file-header={HEADER}", f"--input={source}", f"--output={target}"],
            check=True,
            cwd=FOLDER,
        )


if __name__ == "__main__":
    main()
