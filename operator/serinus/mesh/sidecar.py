"""What the injected pod, its bootstrap and the resources sent to it agree on: ports, the user, paths, headers."""

OUTBOUND_PORT = 15001
"""Takes what the pod's containers send, on 127.0.0.1."""
INBOUND_PORT = 15006
"""Takes what is sent to the pod."""
HEALTH_PORT = 15021
"""Answers ``/ready`` and the probes that the injection rewrote."""
STATS_PORT = 15090
"""Answers ``/stats``, ``/stats/prometheus`` and ``/ready``, and nothing else of Envoy's administration."""

USER = 1337
"""User and group of the sidecar; what this user sends is not captured."""
LOCAL_SOURCE = "127.0.0.6"
"""The address from which the sidecar calls its own pod, by which capture lets it pass."""

STATE_DIR = "/var/run/serinus"
ADMIN_SOCKET = f"{STATE_DIR}/admin.sock"
TOKEN_DIR = "/var/run/secrets/serinus"  # noqa: S105 - a path
TOKEN_FILE = f"{TOKEN_DIR}/token"
TOKEN_SECRET = f"{STATE_DIR}/token.json"
"""Names ``TOKEN_FILE`` as a secret of Envoy's, which then follows its rotation; the init container writes it."""

HEADER_UNSERVED = "x-mesh-unserved"
"""On a reply that the server's sidecar made because no connection to the app came about: the app has not seen it."""
HEADER_CUT = "x-mesh-cut"
"""On a reply that the server's sidecar made because the app closed the connection: the app may have executed it."""

MARKS = ((HEADER_UNSERVED, ("UF", "UH", "NC", "LH")), (HEADER_CUT, ("UC",)))
"""Which of its own replies the server's sidecar marks, by Envoy's response flags: nothing connected; it was cut."""

HEADER_FAULT = "x-serinus-fault"
"""On an answer that a fault had a hand in: whose fault, as ``namespace/name``."""

RESET_CLUSTER = "reset"
"""Takes every connection and closes it at once: the loop guard of the sidecar's own inbound listener."""
GATES = "faults"
"""The runtime layer by which a sidecar is told which faults happen in it."""

UNLIMITED = 4294967295
"""For Envoy's circuit breakers, whose defaults (1024, 3 for retries) fail requests that plain networking carries."""
