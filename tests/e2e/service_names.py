"""Names of Services for the pods of the node: a DNS server of a few dozen lines."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import httpx

from tests.deploy.charting import Json
from tests.e2e.kube_api import CORE, KubeApi, Refusal

_DOMAIN = ".svc.cluster.local"
_PERIOD_S = 0.5
_A_RECORD = 1
_NO_SUCH_NAME = 3


class ServiceNames:
    """Addresses of the Services, or of the pods behind those that have none.

    They are read ahead of the queries: a busy API server must not delay an answer.
    """

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._known: dict[str, list[str]] = {}

    def addresses(self, name: str) -> list[str] | None:
        """Returns the addresses of a name, None if there is no such Service."""
        return self._known.get(name)

    def refresh(self) -> None:
        """Reads the Services and their pods."""
        endpoints = {_key(item): item for item in self._api.items(f"{CORE}/endpoints")}
        known = {}
        for service in self._api.items(f"{CORE}/services"):
            address: str = service["spec"].get("clusterIP", "None")
            name, namespace = _key(service)
            subsets = endpoints.get((name, namespace), {}).get("subsets") or []
            pods = [entry["ip"] for subset in subsets for entry in subset.get("addresses") or []]
            known[f"{name}.{namespace}{_DOMAIN}"] = pods if address == "None" else [address]
        self._known = known


def _key(item: Json) -> tuple[str, str]:
    return item["metadata"]["name"], item["metadata"]["namespace"]


def answer(query: bytes, names: ServiceNames) -> bytes:
    """Returns the answer to a DNS query of one question (RFC 1035)."""
    identifier, _, _ = struct.unpack("!HHH", query[:6])
    labels, position = [], 12
    while query[position]:
        labels.append(query[position + 1 : position + 1 + query[position]].decode("ascii"))
        position += 1 + query[position]
    (kind,) = struct.unpack("!H", query[position + 1 : position + 3])
    question = query[12 : position + 5]
    found = names.addresses(".".join(labels).lower())
    flags = 0x8180 if found is not None else 0x8180 | _NO_SUCH_NAME
    records = [
        struct.pack("!HHHIH", 0xC00C, _A_RECORD, 1, 1, 4) + socket.inet_aton(address)
        for address in (found or [] if kind == _A_RECORD else [])
    ]
    header = struct.pack("!HHHHHH", identifier, flags, 1, len(records), 0, 0)
    return header + question + b"".join(records)


@contextlib.contextmanager
def serve_names(address: str, api: KubeApi) -> Iterator[None]:
    """Answers DNS queries on UDP port 53 of the address for the length of the block."""
    names = ServiceNames(api)
    names.refresh()
    stopping = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        server.settimeout(0.5)

        def refresh() -> None:
            while not stopping.wait(_PERIOD_S):
                with contextlib.suppress(httpx.HTTPError, Refusal):
                    names.refresh()

        def serve() -> None:
            while not stopping.is_set():
                with contextlib.suppress(OSError, ValueError, IndexError, struct.error):
                    query, sender = server.recvfrom(4096)
                    server.sendto(answer(query, names), sender)

        threads = [threading.Thread(target=each) for each in (refresh, serve)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
