"""Where replicas listen for one another.

Ray Serve 2.60 has each replica listen for calls from other replicas on all addresses of
the machine (`replica.py`: "[::]:0"), whatever the node's address is, and has no setting
for it. What comes in there is unpickled, so that Ray's token is all that stands between
a caller and the process. On a cluster that `paraserve serve` has started, replicas
listen on the node's own address instead.
"""

from __future__ import annotations

import os
from typing import Any

from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica

from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE

_EVERYWHERE = "[::]:0"
_HELPER = "add_port_to_grpc_server"


def listen_on_node_address_only() -> None:
    """Has replicas of this process listen on the node's address, if one is given."""
    if os.environ.get(NODE_ADDRESS_VARIABLE):
        if not hasattr(replica, _HELPER):
            raise RuntimeError(f"Ray's replica has no {_HELPER} any more")
        setattr(replica, _HELPER, _add_port_on_node_address)


def _add_port_on_node_address(server: Any, address: str) -> Any:
    host = os.environ[NODE_ADDRESS_VARIABLE]
    if address != _EVERYWHERE:
        raise RuntimeError(f"Ray's replicas listen on {address}, not on {_EVERYWHERE}, any more")
    own = f"[{host}]:0" if ":" in host else f"{host}:0"
    return add_port_to_grpc_server(server, own)  # type: ignore[no-untyped-call]  # Ray leaves it
