"""What runs inside the node, as data: configuration files and command lines. Nothing here starts or writes anything.

The settings that a reader may wonder about:

* etcd does not sync to disk: the state is thrown away by `down`, and a crash of the machine costs one `up`.
* containerd must not raise or lower OOM scores (many sandboxes lack that right) and has no AppArmor profile to load.
* The API server reaches the kubelet by address, else `kubectl logs` would look the node's name up.
* The kubelet never throws an image away for want of space: there is nowhere to pull it from again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import layout
from layout import Layout

PAUSE_IMAGE = "localhost/serinus-pause:dev"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"  # where ctr looks for it; /run is the node's own


@dataclass(frozen=True)
class Component:
    """One process of the node.

    Attributes:
        name: what its log file is called.
        argv: its command line.
        needs_port: the port on the node's loopback that must answer before it is started; 0 for none.
        needs_path: a file that must exist before it is started; empty for none.
        inherits: descriptors of the node's first process that it keeps open.
    """

    name: str
    argv: list[str] = field(default_factory=list)
    needs_port: int = 0
    needs_path: str = ""
    inherits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tools:
    """What was found or built on this machine.

    Attributes:
        binaries: `etcd`, `kube-apiserver`, … `coredns` → the file to run. One file may stand for several.
        containerd: path of containerd.
        cni_directory: directory of the network plugins.
        snapshotter: containerd's way to lay images' layers over each other.
        python: the interpreter that runs the forwarder.
    """

    binaries: Mapping[str, Path]
    containerd: str
    cni_directory: Path
    snapshotter: str
    python: str


def files(where: Layout, tools: Tools) -> dict[Path, str]:
    """Every configuration file of the node with its text."""
    return {
        where.state / "containerd.toml": _containerd(where, tools),
        where.state / "cni" / "10-pods.conflist": _network(where),
        where.state / "kubelet.json": json.dumps(_kubelet(where), indent=2),
        where.state / "Corefile": COREFILE.format(kubeconfig=where.pki / "dns.kubeconfig"),
    }


COREFILE = """.:53 {{
    errors
    health 127.0.0.1:8082
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


UNUSED_PLUGINS = [
    *(f"io.containerd.snapshotter.v1.{kind}" for kind in ("aufs", "btrfs", "devmapper", "zfs")),
    "io.containerd.internal.v1.tracing",
]


def _containerd(where: Layout, tools: Tools) -> str:
    return f"""version = 2
root = "{where.state}/containerd/root"
state = "/run/containerd/state"
disabled_plugins = [{", ".join(json.dumps(plugin) for plugin in UNUSED_PLUGINS)}]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{where.state}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{tools.snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{tools.cni_directory}"
    conf_dir = "{where.state}/cni"
"""


def _network(where: Layout) -> str:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(where.state / "cni-addresses"),
            "ranges": [[{"subnet": layout.NODE_POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}, indent=2)


def _kubelet(where: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": str(where.pki / "ca.crt")},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(where.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(where.pki / "kubelet.key"),
        "clusterDNS": [layout.DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{where.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "podLogsDir": str(where.logs / "pods"),
        "volumePluginDir": str(where.state / "volume-plugins"),
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "maxPods": 200,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "syncFrequency": "10s",
    }


def components(where: Layout, tools: Tools, listening_fd: int) -> list[Component]:
    """Every process of the node, in the order in which they are started."""
    pki, port = where.pki, layout.API_PORT

    def run(name: str) -> str:
        return str(where.state / "bin" / name)

    etcd = [run("etcd"), f"--data-dir={where.state}/etcd", "--unsafe-no-fsync", "--log-level=warn"]
    etcd += [f"--{which}-client-urls=http://127.0.0.1:2379" for which in ("listen", "advertise")]
    etcd += ["--listen-peer-urls=http://127.0.0.1:2380"]
    return [
        Component(
            "forward",
            [tools.python, str(layout.HERE / "forward.py"), str(listening_fd), str(port)],
            inherits=(listening_fd,),
        ),
        Component("etcd", etcd),
        Component("containerd", [tools.containerd, "--config", str(where.state / "containerd.toml")]),
        Component("kube-apiserver", [run("kube-apiserver"), *_api_server(pki)], needs_port=2379),
        Component("kube-controller-manager", [run("kube-controller-manager"), *_controllers(pki)], needs_port=port),
        Component(
            "kube-scheduler",
            [run("kube-scheduler"), f"--kubeconfig={pki}/scheduler.kubeconfig", "--leader-elect=false"],
            needs_port=port,
        ),
        Component(
            "kubelet",
            [
                run("kubelet"),
                f"--config={where.state}/kubelet.json",
                f"--kubeconfig={pki}/kubelet.kubeconfig",
                f"--root-dir={where.state}/kubelet",
                f"--hostname-override={layout.NODE_NAME}",
                f"--node-ip={layout.NODE_IP}",
            ],
            needs_port=port,
            needs_path=CONTAINERD_SOCKET,
        ),
        Component(
            "kube-proxy",
            [
                run("kube-proxy"),
                f"--kubeconfig={pki}/proxy.kubeconfig",
                f"--hostname-override={layout.NODE_NAME}",
                f"--cluster-cidr={layout.POD_CIDR}",
                "--proxy-mode=iptables",
                "--conntrack-max-per-core=0",
            ],
            needs_port=port,
        ),
        Component(
            "coredns",
            [run("coredns"), "-conf", str(where.state / "Corefile")],
            needs_port=port,
            needs_path=str(where.dns_file),
        ),
    ]


def _api_server(pki: Path) -> list[str]:
    return [
        f"--secure-port={layout.API_PORT}",
        f"--advertise-address={layout.NODE_IP}",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={layout.SERVICE_CIDR}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
    ]


def _controllers(pki: Path) -> list[str]:
    return [
        f"--kubeconfig={pki}/controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki}/service-account.key",
        f"--root-ca-file={pki}/ca.crt",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--allocate-node-cidrs",
        f"--cluster-cidr={layout.POD_CIDR}",
        "--node-cidr-mask-size=20",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
    ]


def dns_objects() -> list[dict[str, object]]:
    """What CoreDNS needs in the API: the right to read, and the Service at whose address pods ask it.

    CoreDNS is a process of the node, so the Service has no selector and its EndpointSlice names the node's address.
    """
    rules = [
        {"apiGroups": [""], "resources": ["services", "namespaces", "pods", "endpoints"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "serinus-local-dns"},
            "rules": rules,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "serinus-local-dns"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "serinus-local-dns"},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": "serinus:dns"}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": layout.DNS_SERVICE_IP, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [layout.NODE_IP], "conditions": {"ready": True}}],
        },
    ]
