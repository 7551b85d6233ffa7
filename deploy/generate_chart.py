"""Writes what the chart derives from the code: `python deploy/generate_chart.py`.

- `values.schema.json`, from the comments and defaults of values.yaml and, for the
  settings, from the model that reads them: an unknown key is refused by Helm;
- `files/profiles/`, the built-in profiles, so that the chart's checks know what a
  profile sets (GPU fractions, timeouts, packs);
- `README.md`, a table of the values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from ray.serve.schema import DeploymentSchema, RayActorOptionsSchema

from serve_app.settings import Settings, profile_names

CHART = Path(__file__).parent / "helm" / "paraserve"
_MARK = "@schema"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
_ABSENT_IN_SETTINGS = ("http", "cluster", "pack_dir")

Json = dict[str, Any]


@dataclass(slots=True)
class Comment:
    """The comment above a value.

    Attributes:
        text: for the reader.
        schema: what the `@schema` line adds.
    """

    text: str = ""
    schema: Json = field(default_factory=dict)


def values_schema() -> Json:
    """Returns the schema of values.yaml.

    Raises:
        ValueError: a value has no comment.
    """
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values: Json = yaml.safe_load(text)
    schema = _object(values, _comments(text), ())
    # Helm adds it for charts that have this one as a part.
    schema["properties"]["global"] = {"type": "object"}
    definitions = _settings_definitions()
    definitions["resources"] = _resources()
    definitions["podOptions"] = _without_defaults(schema["properties"]["pods"])
    definitions["workerGroup"] = _worker_group(schema["properties"]["workerGroups"])
    schema["properties"]["workerGroups"] = {
        "type": "object",
        "description": schema["properties"]["workerGroups"]["description"],
        "propertyNames": {"pattern": "^[a-z]([-a-z0-9]{0,20}[a-z0-9])?$"},
        "additionalProperties": {"$ref": "#/$defs/workerGroup"},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart paraserve",
        **schema,
        "$defs": definitions,
    }


def profiles() -> dict[str, str]:
    """Returns the built-in profiles as files of the chart."""
    folder = resources.files("serve_app.profiles")
    return {
        f"{name}.yaml": folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        for name in profile_names()
    }


def schema_text() -> str:
    return json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"


def _comments(text: str) -> dict[tuple[str, ...], Comment]:
    """Returns the comment above each key, by its path."""
    found: dict[tuple[str, ...], Comment] = {}
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            pending = []
        elif stripped.startswith("#"):
            pending.append(stripped.removeprefix("#").strip())
        elif match := re.match(r"^( *)([A-Za-z][\w.-]*):", line):
            indent = len(match[1])
            path = [entry for entry in path if entry[0] < indent] + [(indent, match[2])]
            found[tuple(name for _, name in path)] = _comment(pending)
            pending = []
        else:
            pending = []
    return found


def _comment(lines: list[str]) -> Comment:
    marks = [line for line in lines if line.startswith(_MARK)]
    words = [line for line in lines if not line.startswith(_MARK)]
    schema: Json = {}
    for mark in marks:
        schema |= json.loads(mark.removeprefix(_MARK))
    return Comment(" ".join(words), schema)


def _object(values: Json, comments: dict[tuple[str, ...], Comment], path: tuple[str, ...]) -> Json:
    properties = {}
    for name, value in values.items():
        comment = comments.get((*path, name), Comment())
        if not comment.text:
            raise ValueError(f"values.yaml: {'.'.join((*path, name))} has no comment")
        properties[name] = {
            "description": comment.text,
            **_value(value, comment.schema, comments, (*path, name)),
        }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _value(
    value: Any, schema: Json, comments: dict[tuple[str, ...], Comment], path: tuple[str, ...]
) -> Json:
    for name, made in _named_schemas().items():
        if schema.get(name):
            if name == "workerGroups":
                return _object(value, comments, path)
            return made
    if isinstance(value, dict) and "additionalProperties" not in schema:
        return {**_object(value, comments, path), **schema}
    return {"type": _type(value), **schema}


def _named_schemas() -> dict[str, Json]:
    applications = {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]([-a-z0-9]{0,20}[a-z0-9])?$"},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "required": ["settings"],
            "properties": {
                "route_prefix": {"type": "string", "pattern": "^/[-a-z0-9/]+$"},
                "settings": {"$ref": "#/$defs/Settings"},
                "deployments": {"$ref": "#/$defs/deployments"},
            },
        },
    }
    return {
        "settings": {"$ref": "#/$defs/Settings"},
        "deployments": {"$ref": "#/$defs/deployments"},
        "applications": applications,
        "podOptions": {"$ref": "#/$defs/podOptions"},
        "resources": {"$ref": "#/$defs/resources"},
        "quantity": {"type": "string", "pattern": _QUANTITY},
        "workerGroups": {},
    }


def _type(value: Any) -> str:
    names: dict[type, str] = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return names[type(value)]


def _settings_definitions() -> dict[str, Json]:
    """Returns the settings model and its sections, and Serve's options of a deployment."""
    model = Settings.model_json_schema(ref_template="#/$defs/{model}")
    definitions: dict[str, Json] = model.pop("$defs", {})
    for name in _ABSENT_IN_SETTINGS:
        del model["properties"][name]
    # The model fills in what is missing; a profile may set what has no default.
    definitions["Settings"] = model
    definitions = {name: _plain(schema) for name, schema in definitions.items()}
    used = _reachable(definitions, "Settings")
    definitions = {name: definitions[name] for name in sorted(used)}
    definitions["Settings"]["properties"]["profile"]["enum"] = profile_names()
    stages = {"Ingress", "Segmenter", "Recognizer", "Punctuator", "SpeakerEmbedder"}
    options = dict.fromkeys(sorted(set(DeploymentSchema.model_fields) - {"name"}), True)
    actor = dict.fromkeys(sorted(RayActorOptionsSchema.model_fields), True)
    deployment: Json = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **options,
            "num_replicas": {"type": "integer", "minimum": 1},
            "max_ongoing_requests": {"type": "integer", "minimum": 1},
            "ray_actor_options": {
                "type": "object",
                "additionalProperties": False,
                "properties": actor,
            },
        },
    }
    definitions["deployments"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(sorted(stages), deployment),
    }
    return definitions


def _plain(node: Any) -> Any:
    """Returns a schema without what only pydantic needs, and with tiers in descriptions."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    plain = {}
    if node.get("tier") == "advanced":
        node = {**node, "description": f"Advanced: {node.get('description', '')}"}
    for key, value in node.items():
        if key == "properties":
            plain[key] = {name: _plain(entry) for name, entry in value.items()}
        elif key not in {"title", "default", "tier"}:
            plain[key] = _plain(value)
    return plain


def _reachable(definitions: dict[str, Json], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += re.findall(r'"#/\$defs/([^"]+)"', json.dumps(definitions[name]))
    return found


def _resources() -> Json:
    amount = {"type": ["string", "integer", "number"], "pattern": _QUANTITY}
    amounts = {"type": "object", "additionalProperties": amount}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["requests", "limits"],
        "properties": {"requests": amounts, "limits": amounts},
    }


def _without_defaults(pods: Json) -> Json:
    return {**pods, "description": "Over what stands in `pods`; lists replace those there."}


def _worker_group(groups: Json) -> Json:
    """Returns the schema of one group, made of the comments on the group `cpu`."""
    cpu: Json = json.loads(json.dumps(groups["properties"]["cpu"]))
    cpu["description"] = "A group of workers."
    properties: Json = cpu["properties"]
    for name in ("replicas", "minReplicas", "gpus"):
        properties[name]["minimum"] = 0
    for name in ("maxReplicas", "idleTimeoutSeconds"):
        properties[name]["minimum"] = 1
    properties["resources"] = {"$ref": "#/$defs/resources"}
    properties["pod"] = {"$ref": "#/$defs/podOptions"}
    properties["rayStartParams"] = {
        "type": "object",
        "description": properties["rayStartParams"]["description"],
        "additionalProperties": {"type": "string"},
    }
    for name in ("sharedMemory", "tmpSize"):
        properties[name]["pattern"] = _QUANTITY
    cpu["required"] = sorted(set(properties) - {"pod", "rayStartParams"})
    return cpu


_README = """# paraserve

Written by `python deploy/generate_chart.py`. {description}.

```sh
helm install speech deploy/helm/paraserve -n asr -f deploy/helm/paraserve/values-one-gpu.yaml
```

[docs/operations.md](../../../docs/operations.md) tells how to build the image, install the
operator, upgrade and watch; [docs/settings.md](../../../docs/settings.md) has what `settings`
takes. Ready-made values: {files}.
Helm refuses unknown keys and values that do not fit together.

## Values

| value | default | meaning |
|---|---|---|
{rows}
"""


def readme_text() -> str:
    """Returns the chart's page, made of the comments and defaults of values.yaml."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    comments = _comments(text)
    rows = "\n".join(_rows(yaml.safe_load(text), comments, ()))
    files = ", ".join(f"`{path.name}`" for path in sorted(CHART.glob("values-*.yaml")))
    return _README.format(description=metadata["description"], files=files, rows=rows)


def _rows(
    values: Json, comments: dict[tuple[str, ...], Comment], path: tuple[str, ...]
) -> Iterator[str]:
    for name, value in values.items():
        comment = comments[(*path, name)]
        is_section = isinstance(value, dict) and any(
            (*path, name, key) in comments for key in value
        )
        default = "" if is_section else f"`{json.dumps(value, ensure_ascii=False)}`"
        cells = (f"`{'.'.join((*path, name))}`", default, comment.text)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        if is_section:
            yield from _rows(value, comments, (*path, name))


def outputs() -> Iterator[tuple[Path, str]]:
    """Yields each file and its content."""
    yield CHART / "values.schema.json", schema_text()
    yield CHART / "README.md", readme_text()
    for name, content in profiles().items():
        yield CHART / "files" / "profiles" / name, content


if __name__ == "__main__":
    wanted = dict(outputs())
    for stale in set((CHART / "files" / "profiles").glob("*.yaml")) - set(wanted):
        stale.unlink()
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
