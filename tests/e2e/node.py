"""Real Kubernetes nodes on this machine: control plane, kube-proxy, containerd, kubelets.

Tried with Kubernetes 1.20.2 (the binaries that Debian 12's source package gives), containerd
1.6 and runc 1.1 on cgroup v1. Everything runs in namespaces of its own (sandbox.py); what
outlives those (control groups, two settings of the kernel) is put back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deploy.charting import Json
from tests.deploy.crds import definitions_for, read_crds
from tests.e2e.host_image import PAUSE, write_image, write_runc
from tests.e2e.kube_api import CORE, KubeApi
from tests.e2e.nullable import with_nullable_scalars
from tests.e2e.sandbox import HOST_IP, NODE_IP, Sandbox, sandbox
from tests.e2e.service_names import serve_names
from tests.waiting import wait_until

BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
)
PROGRAMS = ("containerd", "ctr", "runc", "iptables", "nsenter", "unshare", "openssl", "conntrack")
_CNI = Path("/usr/lib/cni")
_ETCD = "http://127.0.0.1:2379"
_URL = f"https://{NODE_IP}:6443"
_SERVICES = "10.96.0.0/24"
_CPU_SHARES = 16 * 1024
# What kubelet and kube-proxy change for the whole machine.
_KERNEL_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")

HOW_TO_GET_IT = (
    "NOT RUN: the end-to-end tests need a cluster. Either root on Linux with containerd, runc, "
    "the CNI plugins, iptables, conntrack and openssl (Debian: containerd runc "
    "containernetworking-plugins iptables conntrack openssl), KUBEBUILDER_ASSETS naming a "
    "directory with " + ", ".join(BINARIES) + " (deploy/testing/get-kube.sh DIR debian-node), and "
    "KUBERAY_CRDS; or a cluster of yours with KubeRay: make e2e OPERATOR=real KUBECONFIG=..."
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The nodes and how to reach them.

    Attributes:
        api: their API server, as the operator.
        kubeconfig: of the administrator.
    """

    api: KubeApi
    kubeconfig: Path


def missing(binaries: Path) -> list[str]:
    """Returns what a node lacks here."""
    lacks = [name for name in BINARIES if not (binaries / name).is_file()]
    lacks += [name for name in PROGRAMS if shutil.which(name) is None]
    lacks += [] if (_CNI / "bridge").exists() else ["CNI plugins"]
    return lacks + ([] if os.geteuid() == 0 else ["root"])


@contextlib.contextmanager
def real_nodes(
    binaries: Path, crds: Path, vad_pack: Path, images: Sequence[str], num_nodes: int = 1
) -> Iterator[Machine]:
    """Runs a cluster of real nodes for the length of the block.

    Args:
        binaries: directory of the programs named in BINARIES.
        crds: directory of KubeRay's definitions.
        vad_pack: model pack that the image has in /models.
        images: names, with tags, under which the nodes have the image.
        num_nodes: kubelets, each with a containerd of its own.
    """
    # Paths of sockets may have 107 characters.
    work = Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
    try:
        with _kernel_settings_kept(), _control_groups(num_nodes), sandbox(work) as inside:
            token = _write_secrets(work)
            api = KubeApi(_URL, work / "ca.crt", token, "kuberay-operator")
            _start_control_plane(inside, binaries, work)
            kubeconfig = _write_kubeconfig(work, token)
            wait_until(lambda: _is_ready(inside, binaries, kubeconfig, work), "the API server")
            _start_controllers(inside, binaries, kubeconfig)
            for definition in definitions_for(read_crds(crds)):
                path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
                api.create(path, with_nullable_scalars(definition))
            runc = write_runc(work, vad_pack)
            _write_archives(work, images)
            with serve_names(HOST_IP, api):
                for index in range(num_nodes):
                    _start_node(inside, binaries, kubeconfig, work / f"n{index}", runc, index)
                wait_until(lambda: _num_ready(api) == num_nodes, "the nodes")
                yield Machine(api, kubeconfig)
    finally:
        if os.environ.get("E2E_KEEP_LOGS"):
            shutil.copytree(
                work,
                os.environ["E2E_KEEP_LOGS"],
                symlinks=True,
                ignore=_all_but_logs,
                dirs_exist_ok=True,
            )
        shutil.rmtree(work, ignore_errors=True)


def _all_but_logs(folder: str, names: list[str]) -> list[str]:
    """Keeps the logs of the programs and of the pods."""
    kept = {0: (".log", "n0", "n1"), 1: ("var",), 2: ("log",)}
    depth = len(Path(folder).parts) - 3
    return [name for name in names if depth in kept and not name.endswith(kept[depth])]


@contextlib.contextmanager
def _kernel_settings_kept() -> Iterator[None]:
    paths = [Path("/proc/sys", name) for name in _KERNEL_SETTINGS]
    before = [path.read_text() for path in paths]
    try:
        yield
    finally:
        for path, value in zip(paths, before, strict=True):
            path.write_text(value)


def _cgroup(index: int) -> str:
    return f"paraserve-e2e-{index}"


def _hierarchies() -> list[Path]:
    mounted = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(words[1]) for words in mounted if words[2] in ("cgroup", "cgroup2")]


@contextlib.contextmanager
def _control_groups(num_nodes: int) -> Iterator[None]:
    """Makes the groups under which each kubelet keeps its pods; they are removed in the end."""
    groups = [path / _cgroup(index) for path in _hierarchies() for index in range(num_nodes)]
    for group in groups:
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (group / name).exists():
                (group / name).write_text((group.parent / name).read_text())
        if (group / "cpu.shares").exists():
            # All pods of a node together would else weigh as much as one process beside them.
            (group / "cpu.shares").write_text(str(_CPU_SHARES))
    try:
        yield
    finally:
        # Their processes ended with the sandbox.
        for group in groups:
            _remove_group(group)


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + 20
    while group.exists() and time.monotonic() < deadline:
        for path in sorted(group.rglob("*/"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
        if group.exists():
            time.sleep(0.5)


def _write_secrets(work: Path) -> str:
    """Writes keys, certificates and tokens; returns the administrator's token."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=work)

    token = os.urandom(16).hex()
    (work / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n')
    openssl("genrsa", "-out", "sa.key", "2048")
    request = ["req", "-newkey", "rsa:2048", "-nodes"]
    openssl(*request, "-x509", "-subj", "/CN=e2e", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(*request, "-subj", "/CN=kube-apiserver", "-keyout", "api.key", "-out", "api.csr")
    names = [f"IP:{NODE_IP}", "IP:10.96.0.1", "DNS:kubernetes.default.svc"]
    (work / "names").write_text(f"subjectAltName={','.join(names)}\n")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "api.csr", *signed, "-out", "api.crt")
    return token


def _write_kubeconfig(work: Path, token: str) -> Path:
    cluster = {"server": _URL, "certificate-authority": str(work / "ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "admin"}}],
        "current-context": "e2e",
    }
    path = work / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def _start_control_plane(inside: Sandbox, binaries: Path, work: Path) -> None:
    etcd = [f"--data-dir={work / 'etcd'}", "--unsafe-no-fsync", f"--listen-client-urls={_ETCD}"]
    inside.start("etcd", [str(binaries / "etcd"), *etcd, f"--advertise-client-urls={_ETCD}"])
    server = [
        f"--etcd-servers={_ETCD}",
        f"--bind-address={NODE_IP}",
        f"--advertise-address={NODE_IP}",
        "--secure-port=6443",
        f"--tls-cert-file={work / 'api.crt'}",
        f"--tls-private-key-file={work / 'api.key'}",
        f"--service-cluster-ip-range={_SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={work / 'sa.key'}",
        f"--service-account-key-file={work / 'sa.key'}",
        f"--token-auth-file={work / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--kubelet-preferred-address-types=InternalIP",
    ]
    if _minor(binaries / "kube-apiserver") < 24:
        server.append("--insecure-port=0")
    inside.start("apiserver", [str(binaries / "kube-apiserver"), *server])


def _minor(program: Path) -> int:
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    found = re.search(r"v1\.(\d+)", told.stdout)
    if found is None:
        raise RuntimeError(f"{program} --version: {told.stdout}")
    return int(found[1])


def _is_ready(inside: Sandbox, binaries: Path, kubeconfig: Path, work: Path) -> bool:
    told = subprocess.run(
        ["curl", "--silent", "--noproxy", "*", "--cacert", str(work / "ca.crt"), f"{_URL}/readyz"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout == "ok"


def _start_controllers(inside: Sandbox, binaries: Path, kubeconfig: Path) -> None:
    common = [f"--kubeconfig={kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false"]
    folder = kubeconfig.parent
    keys = [f"--service-account-private-key-file={folder / 'sa.key'}"]
    keys.append(f"--root-ca-file={folder / 'ca.crt'}")
    inside.start("controller", [str(binaries / "kube-controller-manager"), *common, *keys])
    inside.start("scheduler", [str(binaries / "kube-scheduler"), *common])
    proxy = [
        f"--kubeconfig={kubeconfig}",
        "--proxy-mode=iptables",
        "--cluster-cidr=10.244.0.0/16",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--hostname-override=e2e-0",
    ]
    inside.start("proxy", [str(binaries / "kube-proxy"), *proxy])


def _write_archives(work: Path, images: Sequence[str]) -> None:
    write_image(work / "pause.tar", PAUSE, ["/usr/bin/sleep", "infinity"])
    for index, image in enumerate(images):
        write_image(work / f"image-{index}.tar", image, ["/usr/bin/sleep", "infinity"])


def _start_node(
    inside: Sandbox, binaries: Path, kubeconfig: Path, folder: Path, runc: Path, index: int
) -> None:
    folder.mkdir()
    address = NODE_IP.removesuffix("1") + str(index + 1)
    if index:
        inside.run("ip", "address", "add", f"{address}/24", "dev", "node0")
    # Where kubelet writes whatever its settings say, and deletes what it does not know.
    inside = inside.with_own(("/var/lib", "/var/log"), folder)
    socket = folder / "c" / "containerd.sock"
    _write_containerd_config(folder, socket, runc, index)
    inside.start(f"containerd-{index}", ["containerd", "--config", str(folder / "containerd.toml")])
    ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io"]

    def answers() -> bool:
        return "Server" in inside.run(*ctr, "version", check=False)

    wait_until(answers, "containerd")
    for archive in sorted(folder.parent.glob("*.tar")):
        inside.run(*ctr, "images", "import", str(archive))
    _write_kubelet_config(folder, address, index)
    program = binaries / "kubelet"
    kubelet = [
        f"--config={folder / 'kubelet.yaml'}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override=e2e-{index}",
        f"--node-ip={address}",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'certificates'}",
        f"--container-runtime-endpoint=unix://{socket}",
        f"--volume-plugin-dir={folder / 'plugins'}",
        f"--node-labels=kubernetes.io/hostname=e2e-{index}",
    ]
    if _minor(program) < 24:
        kubelet += ["--container-runtime=remote", f"--pod-infra-container-image={PAUSE}"]
    inside.start(f"kubelet-{index}", [str(program), *kubelet])


def _write_containerd_config(folder: Path, socket: Path, runc: Path, index: int) -> None:
    network: Json = {
        "cniVersion": "0.4.0",
        "name": "e2e",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "addresses"),
                    "ranges": [
                        [
                            {
                                "subnet": "10.244.0.0/16",
                                "rangeStart": f"10.244.{index}.2",
                                "rangeEnd": f"10.244.{index}.254",
                                "gateway": "10.244.255.1",
                            }
                        ]
                    ],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
        ],
    }
    (folder / "cni").mkdir()
    (folder / "cni" / "e2e.conflist").write_text(json.dumps(network))
    (folder / "containerd.toml").write_text(
        f"""version = 2
root = "{folder}/containerd"
state = "{socket.parent}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
"""
    )


def _write_kubelet_config(folder: Path, address: str, index: int) -> None:
    config = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": address,
        "port": 10350 + index,
        "healthzPort": 10360 + index,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [HOST_IP],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_cgroup(index)}",
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi"},
    }
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(config))


def _num_ready(api: KubeApi) -> int:
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for node in api.items(f"{CORE}/nodes")
        for condition in node["status"].get("conditions") or ()
    )
