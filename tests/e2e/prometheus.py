"""A real Prometheus in an application's namespace."""

import yaml
from harness import SHOP, App, Object

SELF = {"job_name": "self", "scrape_interval": "1s", "static_configs": [{"targets": ["localhost:9090"]}]}
PODS = {
    "job_name": "pods",
    "scrape_interval": "1s",
    "http_sd_configs": [{"url": "http://127.0.0.1:9101/targets", "refresh_interval": "1s"}],
}


def install(app: App, *, pods: bool = False) -> dict[str, str]:
    """Install it and wait until it answers; return it as ``analysis.prometheus``.

    It reads itself every second; with ``pods`` also the namespace's pods that ask for it by annotation.
    """
    app.cluster.apply(*_objects(app.namespace, pods=pods))
    wait = ["rollout", "status", "deployment/prometheus", "-n", app.namespace, "--timeout=60s"]
    app.cluster.kubectl(*wait, timeout_s=70)
    return {"address": f"http://prometheus.{app.namespace}"}


def _objects(namespace: str, *, pods: bool) -> list[Object]:
    container = {
        "name": "prometheus",
        "image": "localhost/serinus-prometheus:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["prometheus"],
        "args": ["--config.file=/etc/own/prometheus.yml", "--storage.tsdb.path=/data"],
        "ports": [{"name": "http", "containerPort": 9090}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "http"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/own"}, {"name": "data", "mountPath": "/data"}],
    }
    discover = {
        "name": "discover",
        "image": SHOP,
        "imagePullPolicy": "IfNotPresent",
        "args": ["discover", "--namespace", namespace],
    }
    template = {
        "metadata": {"labels": {"app": "prometheus", "serinus.dev/inject": "disabled"}},
        "spec": {
            "serviceAccountName": "prometheus",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"fsGroup": 65532},
            "containers": [container, discover] if pods else [container],
            "volumes": [{"name": "config", "configMap": {"name": "prometheus"}}, {"name": "data", "emptyDir": {}}],
        },
    }
    meta = {"namespace": namespace, "name": "prometheus"}
    account = {"kind": "ServiceAccount", **meta}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "prometheus"}
    config = {"scrape_configs": [SELF, PODS] if pods else [SELF]}
    rights = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": rights,
            "kind": "Role",
            "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        {"apiVersion": rights, "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": [account]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"prometheus.yml": yaml.safe_dump(config)}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": "prometheus"}, "ports": [{"port": 80, "targetPort": "http"}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "prometheus"}}, "template": template},
        },
    ]
