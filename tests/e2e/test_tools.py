"""What the end-to-end tests count with, and names with."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.deploy.charting import Json
from tests.deploy.crds import schema_of
from tests.e2e.nullable import with_nullable_scalars
from tests.e2e.runc_with_mounts import add_mounts
from tests.e2e.service_names import ServiceNames, answer
from tests.e2e.traffic import Row, Sent, line

HEADLESS = "head.asr.svc.cluster.local"


def sent(status: int, text: str = "", sent_at: float = 0.0, took_s: float = 1.0) -> Sent:
    return Sent(sent_at, took_s, status, text, "")


def test_each_request_is_right_refused_or_lost() -> None:
    row = Row("step", spoken="好")
    row.requests = [
        sent(200, "好", took_s=3.0),
        sent(200, "坏", sent_at=10.0),
        sent(503, sent_at=12.0),
        sent(429, sent_at=13.0),
        sent(-1, sent_at=14.0),
        sent(0, sent_at=25.0),
        sent(500, sent_at=20.0),
    ]
    assert (len(row.right), len(row.refused), len(row.lost)) == (1, 3, 3)
    assert (row.p95_s, row.outage_s) == (3.0, 15.0)
    assert "failures over 15 s" in line(row)


class FakeNames(ServiceNames):
    def __init__(self) -> None:
        self._known = {HEADLESS: ["10.244.0.7", "10.244.1.9"]}


@pytest.mark.parametrize(
    ("name", "kind", "code", "num_records"),
    [(HEADLESS, 1, 0, 2), (HEADLESS, 28, 0, 0), ("other.asr.svc.cluster.local", 1, 3, 0)],
)
def test_names_are_answered_as_dns_wants(name: str, kind: int, code: int, num_records: int) -> None:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + b"\0"
    told = answer(query + struct.pack("!HH", kind, 1), FakeNames())
    identifier, flags, _, count, _, _ = struct.unpack("!HHHHHH", told[:12])
    assert (identifier, flags & 0xF, count) == (77, code, num_records)
    if count:
        assert told.endswith(bytes([10, 244, 1, 9]))


def test_mounts_come_before_those_of_the_pod(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"mounts": [{"destination": "/models/x"}]}')
    add_mounts(tmp_path, {"/usr": "/usr", "/models": "/m"})
    text = (tmp_path / "config.json").read_text()
    assert text.index("/usr") < text.index("/models/x")


def test_scalars_may_be_null_except_keys_of_lists() -> None:
    scalar: Json = {"type": "string"}
    items = {"type": "object", "properties": {"name": dict(scalar), "value": dict(scalar)}}
    entries = {"type": "array", "x-kubernetes-list-map-keys": ["name"], "items": items}
    schema = {"properties": {"spec": {"type": "object", "properties": {"entries": entries}}}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    changed = schema_of(with_nullable_scalars({"spec": {"versions": [version]}}))
    found = changed["properties"]["spec"]["properties"]["entries"]["items"]["properties"]
    assert found == {"name": scalar, "value": {**scalar, "nullable": True}}
