"""A real Kubernetes API server on loopback: etcd, kube-apiserver, KubeRay's CRDs.

The binaries are found as controller-runtime's envtest finds them: in the directory
that `KUBEBUILDER_ASSETS` names. `deploy/testing/get-kube.sh` puts them there, and
KubeRay's definitions into the directory that `KUBERAY_CRDS` names.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from kubernetes import client

from loadtests.ports import free_port
from tests.deploy.charting import as_json
from tests.deploy.crds import definitions_for, read_crds
from tests.waiting import wait_until

_READY_TIMEOUT_S = 200.0
_ADMIN_TOKEN = "admin-token"

HOW_TO_GET_THEM = (
    "NOT RUN: the tests against a real Kubernetes API server need its binaries and KubeRay's "
    "CRDs. Get them with `deploy/testing/get-kube.sh DIR`, then set KUBEBUILDER_ASSETS=DIR/bin "
    "and KUBERAY_CRDS=DIR/crds."
)


@dataclass(frozen=True, slots=True)
class KubeServer:
    """A running API server and how to reach it as its administrator."""

    url: str
    ca_file: Path
    kubeconfig: Path

    def api_client(self, impersonate: str | None = None) -> client.ApiClient:
        """Returns a client of the administrator, or of whom he impersonates."""
        configuration = client.Configuration()
        configuration.host = self.url
        configuration.ssl_ca_cert = str(self.ca_file)
        configuration.api_key = {"authorization": _ADMIN_TOKEN}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        api_client = client.ApiClient(configuration)
        if impersonate is not None:
            api_client.default_headers["Impersonate-User"] = impersonate
        return api_client


def assets() -> tuple[Path, Path] | None:
    """Returns the directories of the binaries and of the CRDs, None if one is missing."""
    binaries = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
    crds = Path(os.environ.get("KUBERAY_CRDS", ""))
    there = all((binaries / name).is_file() for name in ("etcd", "kube-apiserver"))
    return (binaries, crds) if there and any(crds.glob("*ray.io_*")) else None


@contextmanager
def kube_server(binaries: Path, crds: Path, work: Path) -> Iterator[KubeServer]:
    """Runs etcd and the API server with KubeRay's CRDs for the length of the block."""
    etcd_port, peer_port, port = (free_port() for _ in range(3))
    etcd_url = f"http://127.0.0.1:{etcd_port}"
    with (
        _process(_etcd_command(binaries, work, etcd_url, peer_port), work / "etcd.log") as etcd,
        _process(_apiserver_command(binaries, work, etcd_url, port), work / "api.log") as api,
    ):
        server = KubeServer(
            f"https://127.0.0.1:{port}", work / "certs" / "apiserver.crt", work / "kubeconfig"
        )
        _wait_until_ready(server, (etcd, api), work)
        _write_kubeconfig(server)
        _create_definitions(server, crds)
        yield server


def _etcd_command(binaries: Path, work: Path, url: str, peer_port: int) -> list[str]:
    peer = f"http://127.0.0.1:{peer_port}"
    return [
        str(binaries / "etcd"),
        f"--data-dir={work / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]


def _apiserver_command(binaries: Path, work: Path, etcd_url: str, port: int) -> list[str]:
    key = work / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens = work / "tokens.csv"
    tokens.write_text(f'{_ADMIN_TOKEN},admin,1,"system:masters"\n')
    return [
        str(binaries / "kube-apiserver"),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        *_flags_of_its_age(binaries),
        f"--cert-dir={work / 'certs'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
    ]


def _flags_of_its_age(binaries: Path) -> list[str]:
    """Returns what closes the port without TLS, which servers before 1.24 have."""
    told = subprocess.run(
        [str(binaries / "kube-apiserver"), "--version"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    minor = int(told.split("v1.")[1].split(".")[0])
    return ["--insecure-port=0"] if minor < 24 else []


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(
    server: KubeServer, processes: tuple[subprocess.Popen[bytes], ...], work: Path
) -> None:
    def ready() -> bool:
        if not server.ca_file.exists():
            return False
        try:
            answer = httpx.get(f"{server.url}/readyz", verify=False, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def alive() -> None:
        if any(process.poll() is not None for process in processes):
            raise RuntimeError(
                f"the API server ended at once:\n{(work / 'api.log').read_text()[-3000:]}"
            )

    wait_until(ready, "the API server's /readyz", alive)


def _write_kubeconfig(server: KubeServer) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "test",
                "cluster": {"server": server.url, "certificate-authority": str(server.ca_file)},
            }
        ],
        "users": [{"name": "admin", "user": {"token": _ADMIN_TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    server.kubeconfig.write_text(yaml.safe_dump(config))


def _create_definitions(server: KubeServer, crds: Path) -> None:
    with server.api_client() as api_client:
        api = client.CustomObjectsApi(api_client)
        for definition in definitions_for(read_crds(crds)):
            # Not through the typed model: it would drop keys that it does not know.
            api.create_cluster_custom_object(
                "apiextensions.k8s.io", "v1", "customresourcedefinitions", definition
            )

        def established() -> bool:
            found = as_json(
                api.list_cluster_custom_object(
                    "apiextensions.k8s.io", "v1", "customresourcedefinitions"
                )
            )
            return all(
                any(
                    condition["type"] == "Established" and condition["status"] == "True"
                    for condition in (item.get("status") or {}).get("conditions") or ()
                )
                for item in found["items"]
            )

        wait_until(established, "the custom resource definitions")
