"""Replicas listen for one another on the node's address alone."""

from __future__ import annotations

import pytest
from ray.serve._private import replica

from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE
from serve_app.deployments import options


class Server:
    def __init__(self) -> None:
        self.addresses: list[str] = []

    def add_insecure_port(self, address: str) -> int:
        self.addresses.append(address)
        return 1


def bind(monkeypatch: pytest.MonkeyPatch, address: str) -> list[str]:
    """Returns where a replica would listen whose node has this address."""
    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)  # type: ignore[attr-defined]
    monkeypatch.setenv(NODE_ADDRESS_VARIABLE, address)
    options.listen_on_node_address_only()
    server = Server()
    replica.add_port_to_grpc_server(server, "[::]:0")  # type: ignore[attr-defined,no-untyped-call]
    return server.addresses


def test_replica_listens_on_the_nodes_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bind(monkeypatch, "127.0.0.1") == ["127.0.0.1:0"]
    assert bind(monkeypatch, "::1") == ["[::1]:0"]


def test_replica_on_a_foreign_cluster_listens_on_rays_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bind(monkeypatch, "") == ["[::]:0"]


def test_other_address_than_the_known_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bind(monkeypatch, "127.0.0.1")
    with pytest.raises(RuntimeError, match="instead of"):
        replica.add_port_to_grpc_server(Server(), "0.0.0.0:0")  # type: ignore[attr-defined,no-untyped-call]
