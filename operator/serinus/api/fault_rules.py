"""The rules about faults: what must be said of one, and what is too much."""

from serinus.api.base import seconds
from serinus.api.fault import Abort, Fault
from serinus.api.matching import SAFE_METHODS
from serinus.api.rule import Rule, exactly_one

LONGEST_TTL_S = 3600.0
"""A fault that is meant to last longer than an hour is not a test any more."""
LONGEST_DELAY_S = 300.0

_CEL_SAFE = ", ".join(f"'{method}'" for method in SAFE_METHODS)


def _hits_unsafe(fault: Fault) -> bool:
    return any(method not in SAFE_METHODS for method in fault.match.methods or [])


FAULT_RULES: tuple[Rule, ...] = (
    Rule(
        Abort,
        "has(self.httpStatus) != has(self.grpcStatus)",
        exactly_one("http_status", "grpc_status"),
        "an answer has exactly one of httpStatus and grpcStatus; write one of them",
    ),
    Rule(
        Fault,
        "has(self.delay) || has(self.abort) || (has(self.reset) && self.reset)",
        lambda fault: bool(fault.delay or fault.abort or fault.reset),
        "nothing goes wrong in this fault; write at least one of delay, abort and reset",
    ),
    Rule(
        Fault,
        "!has(self.abort) || !has(self.reset) || !self.reset",
        lambda fault: fault.abort is None or not fault.reset,
        "a request ends by an answer or by a broken connection; write one of abort and reset",
        "abort",
    ),
    Rule(
        Fault,
        "!has(self.delay) || (duration(self.delay) >= duration('1ms') && duration(self.delay) <= duration('5m'))",
        lambda fault: fault.delay is None or 0.001 <= seconds(fault.delay) <= LONGEST_DELAY_S,
        'a delay is from "1ms" to "5m"; write one within that',
        "delay",
    ),
    Rule(
        Fault,
        "duration(self.ttl) >= duration('1s') && duration(self.ttl) <= duration('1h')",
        lambda fault: 1 <= seconds(fault.ttl) <= LONGEST_TTL_S,
        'a fault ends by itself after its ttl, which is from "1s" to "1h"; write one within that',
        "ttl",
    ),
    Rule(
        Fault,
        "!has(self.match) || !has(self.match.methods) || (has(self.allowUnsafe) && self.allowUnsafe)"
        f" || self.match.methods.all(m, m in [{_CEL_SAFE}])",
        lambda fault: fault.allow_unsafe or not _hits_unsafe(fault),
        "methods other than GET, HEAD and OPTIONS may change something, and a caller may try them again; drop them, or"
        " write allowUnsafe: true",
        "match.methods",
    ),
    Rule(
        Fault,
        "!has(self.abort) || !has(self.abort.grpcStatus) || (has(self.allowUnsafe) && self.allowUnsafe)",
        lambda fault: fault.abort is None or fault.abort.grpc_status is None or fault.allow_unsafe,
        "gRPC sends every call as POST, which may change something; write allowUnsafe: true where that is meant",
        "abort.grpcStatus",
    ),
)
