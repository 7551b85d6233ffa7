"""The chart as objects: rendered without a server, and taken apart."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "paraserve"
READY_MADE = ("demo-cpu", "one-gpu", "many-gpus", "airgapped")

Json = dict[str, Any]

# libyaml's, which is many times as fast; most of what the tests here do is to read YAML.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# All that is off unless asked for.
EVERYTHING: Json = {
    "batch": {
        "source": "s3://calls/2026/",
        "output": "s3://texts/2026/",
        "job": {"enabled": True},
        "cron": {"enabled": True, "timeZone": "Asia/Shanghai"},
    },
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "ingress": {"enabled": True, "hosts": ["speech.example.com"]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    "rbac": {"operators": [{"kind": "User", "name": "olga"}]},
    "serve": {"serviceType": "LoadBalancer"},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "extra", "namespace": "asr"},
            "data": {},
        }
    ],
}


def command(name: str) -> str:
    """Returns the path of a program that a package of this environment has brought.

    Raises:
        FileNotFoundError: it is not there.
    """
    beside_python = Path(sys.executable).parent
    found = shutil.which(name, path=beside_python) or shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not here; it comes with the extra `deploy`")
    return found


def as_json(answer: object) -> Json:
    """Returns an answer of the custom objects' API, which is annotated as an object.

    Raises:
        TypeError: it is no mapping.
    """
    if not isinstance(answer, dict):
        raise TypeError(f"not a mapping: {answer!r}")
    return answer


def ready_values(name: str) -> Json:
    """Returns one of the ready-made values."""
    content: Json = yaml.safe_load((CHART / f"values-{name}.yaml").read_text(encoding="utf-8"))
    return content


def combined(*values: Json) -> Json:
    """Returns the values laid over each other, as Helm does with several files."""
    result: Json = {}
    for layer in values:
        _lay(result, copy.deepcopy(layer))
    return result


def _lay(under: Json, over: Json) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _lay(under[key], value)
        else:
            under[key] = value


def render(values: Json, name: str = "speech", namespace: str = "asr") -> list[Json]:
    """Returns the objects that the chart makes.

    Raises:
        helm_python.HelmError: the values are refused.
    """
    return copy.deepcopy(_rendered(json.dumps(values, sort_keys=True), name, namespace))


@cache
def _rendered(values: str, name: str, namespace: str) -> list[Json]:
    """Renders once what many tests look at, from values as JSON."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(json.loads(values), name=name, namespace=namespace)
    return [
        item
        for path, text in texts.items()
        if not path.endswith("NOTES.txt")
        for item in yaml.load_all(text, YAML_LOADER)
        if item
    ]


def notes(values: Json, name: str = "speech", namespace: str = "asr") -> str:
    """Returns what Helm tells the operator after an install."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name=name, namespace=namespace)
    return next(text for path, text in texts.items() if path.endswith("NOTES.txt"))


def only(objects: list[Json], kind: str) -> Json:
    """Returns the one object of a kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def serve_config(objects: list[Json]) -> Json:
    config: Json = yaml.safe_load(only(objects, "RayService")["spec"]["serveConfigV2"])
    return config


def cluster_specs(item: Json) -> list[Json]:
    """Returns the specifications of Ray clusters in an object."""
    spec = item.get("spec", {})
    if item["kind"] == "RayService":
        return [spec["rayClusterConfig"]]
    if item["kind"] == "RayJob":
        return [spec["rayClusterSpec"]]
    if item["kind"] == "RayCronJob":
        return [spec["jobTemplate"]["rayClusterSpec"]]
    return [spec] if item["kind"] == "RayCluster" else []


def pods_within(item: Json) -> Iterator[Json]:
    """Yields a Pod for each pod template in an object of Ray's, and Pods themselves.

    Linters and the server know nothing of templates inside of custom objects.
    """
    if item["kind"] == "Pod":
        yield item
        return
    templates: list[tuple[str, Json]] = []
    for spec in cluster_specs(item):
        templates.append(("head", spec["headGroupSpec"]["template"]))
        templates += [(group["groupName"], group["template"]) for group in spec["workerGroupSpecs"]]
    spec = item.get("spec", {})
    job = spec.get("jobTemplate", spec)
    if "submitterPodTemplate" in job:
        templates.append(("submitter", job["submitterPodTemplate"]))
    for name, template in templates:
        metadata = dict(template.get("metadata", {}))
        metadata["name"] = f"{item['metadata']['name']}-{name}"
        metadata["namespace"] = item["metadata"].get("namespace", "default")
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": template["spec"],
        }


def load_script(path: Path) -> ModuleType:
    """Imports a script that is not part of a package."""
    name = f"deploy_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
