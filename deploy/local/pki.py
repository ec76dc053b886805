"""The cluster's certificates, made with openssl: one authority, one certificate for each component."""

import subprocess
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import layout
from layout import Layout

DAYS = "3650"


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names, and under which names a server with it may be reached."""

    file: str
    subject: str
    alternative_names: str = ""


IDENTITIES = (
    Identity(
        "apiserver",
        "/CN=kube-apiserver",
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,"
        f"DNS:localhost,IP:127.0.0.1,IP:{layout.NODE_IP},IP:{layout.API_SERVICE_IP}",
    ),
    Identity("admin", "/O=system:masters/CN=admin"),
    Identity("apiserver-to-kubelet", "/O=system:masters/CN=apiserver-to-kubelet"),
    Identity(
        "kubelet",
        f"/O=system:nodes/CN=system:node:{layout.NODE_NAME}",
        f"DNS:{layout.NODE_NAME},IP:{layout.NODE_IP}",
    ),
    Identity("controller-manager", "/CN=system:kube-controller-manager"),
    Identity("scheduler", "/CN=system:kube-scheduler"),
    Identity("proxy", "/CN=system:kube-proxy"),
    Identity("dns", "/CN=serinus:dns"),
)


def ensure(where: Layout, port: int) -> None:
    """Makes what is missing in `pki/` and writes every kubeconfig; the host's names 127.0.0.1:`port`."""
    directory = where.pki
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (directory / "complete").exists():
        (directory / "openssl.cnf").write_text("[req]\ndistinguished_name = names\n[names]\n")
        authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        _openssl(*_new(directory, "ca"), "-subj", "/CN=serinus-local", "-days", DAYS, *authority)
        for identity in IDENTITIES:
            _sign(directory, identity)
        _openssl("genrsa", "-out", str(directory / "service-account.key"), "2048")
        _openssl(
            "rsa",
            *("-in", str(directory / "service-account.key")),
            *("-pubout", "-out", str(directory / "service-account.pub")),
        )
        (directory / "complete").touch()
    for name in ("kubelet", "controller-manager", "scheduler", "proxy", "dns"):
        _write_private(directory / f"{name}.kubeconfig", kubeconfig(directory, name, layout.API_PORT))
    _write_private(where.kubeconfig, kubeconfig(directory, "admin", port))


def kubeconfig(directory: Path, name: str, port: int) -> str:
    """A kubeconfig, whole in itself, for the identity whose files are called `name`."""
    data = {
        "ca": b64encode((directory / "ca.crt").read_bytes()).decode(),
        "crt": b64encode((directory / f"{name}.crt").read_bytes()).decode(),
        "key": b64encode((directory / f"{name}.key").read_bytes()).decode(),
    }
    return f"""apiVersion: v1
kind: Config
current-context: serinus-local
contexts:
- name: serinus-local
  context: {{cluster: serinus-local, user: {name}}}
clusters:
- name: serinus-local
  cluster:
    server: https://127.0.0.1:{port}
    certificate-authority-data: {data["ca"]}
users:
- name: {name}
  user:
    client-certificate-data: {data["crt"]}
    client-key-data: {data["key"]}
"""


def _sign(directory: Path, identity: Identity) -> None:
    extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    if identity.alternative_names:
        extensions += ["-addext", f"subjectAltName={identity.alternative_names}"]
    authority = ["-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")]
    _openssl(*_new(directory, identity.file), *authority, "-subj", identity.subject, "-days", DAYS, *extensions)


def _new(directory: Path, name: str) -> list[str]:
    """The arguments that make a key and its certificate; our own configuration keeps the system's extensions out."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.crt")]
    return ["req", "-x509", "-config", str(directory / "openssl.cnf"), *curve, *files]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
