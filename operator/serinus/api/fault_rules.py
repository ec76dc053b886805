"""The rules about faults: what must be said of one, and what is too much."""

from serinus.api.base import seconds
from serinus.api.fault import Abort, Experiment, Fault
from serinus.api.matching import SAFE_METHODS
from serinus.api.rule import Rule, exactly_one

LONGEST_TTL_S = 3600.0
"""A fault that is meant to last longer than an hour is not a test any more."""
LONGEST_DELAY_S = 300.0
LONGEST_EXPERIMENT_S = 1800.0

_CEL_ANY = "has(self.delay) || has(self.abort) || (has(self.reset) && self.reset)"
_CEL_ONE_END = "!has(self.abort) || !has(self.reset) || !self.reset"
_TWO_ENDS = "a request ends by an answer or by a broken connection; write one of abort and reset"
_CEL_DELAY = "!has(self.delay) || (duration(self.delay) >= duration('1ms') && duration(self.delay) <= duration('5m'))"
_DELAY = 'a delay is from "1ms" to "5m"; write one within that'
_GRPC = "gRPC sends every call as POST, which may change something; write allowUnsafe: true where that is meant"
_CEL_GRPC = "!has(self.abort) || !has(self.abort.grpcStatus) || (has(self.allowUnsafe) && self.allowUnsafe)"
_CEL_SAFE = ", ".join(f"'{method}'" for method in SAFE_METHODS)


def _any(fault: Fault | Experiment) -> bool:
    return bool(fault.delay or fault.abort or fault.reset)


def _delay_fits(fault: Fault | Experiment) -> bool:
    return fault.delay is None or 0.001 <= seconds(fault.delay) <= LONGEST_DELAY_S


def _grpc_meant(fault: Fault | Experiment) -> bool:
    return fault.abort is None or fault.abort.grpc_status is None or fault.allow_unsafe


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
        _CEL_ANY,
        _any,
        "nothing goes wrong in this fault; write at least one of delay, abort and reset",
    ),
    Rule(
        Fault,
        _CEL_ONE_END,
        lambda fault: fault.abort is None or not fault.reset,
        _TWO_ENDS,
        "abort",
    ),
    Rule(
        Fault,
        _CEL_DELAY,
        _delay_fits,
        _DELAY,
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
        _CEL_GRPC,
        _grpc_meant,
        _GRPC,
        "abort.grpcStatus",
    ),
    Rule(
        Experiment,
        f"has(self.suite) != ({_CEL_ANY})",
        lambda experiment: (experiment.suite is not None) != _any(experiment),
        "what goes wrong is a suite, or said in full; write either suite, or at least one of delay, abort and reset",
        "suite",
    ),
    Rule(Experiment, _CEL_ONE_END, lambda each: each.abort is None or not each.reset, _TWO_ENDS, "abort"),
    Rule(Experiment, _CEL_DELAY, _delay_fits, _DELAY, "delay"),
    Rule(Experiment, _CEL_GRPC, _grpc_meant, _GRPC, "abort.grpcStatus"),
    Rule(
        Experiment,
        "!has(self.duration) || (duration(self.duration) >= duration('10s')"
        " && duration(self.duration) <= duration('30m'))",
        lambda experiment: 10 <= seconds(experiment.duration) <= LONGEST_EXPERIMENT_S,
        'an experiment takes from "10s" to "30m"; write a duration within that',
        "duration",
    ),
    Rule(
        Experiment,
        "!has(self.recovery) || duration(self.recovery) <= duration('30m')",
        lambda experiment: seconds(experiment.recovery) <= LONGEST_EXPERIMENT_S,
        'recovery is looked at for "30m" at most; write a time within that',
        "recovery",
    ),
)
