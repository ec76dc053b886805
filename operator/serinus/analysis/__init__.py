"""Evidence in, verdict out. Pure: no I/O, no clock, no logging."""

from typing import Any

from serinus.analysis.gatemodel import GateJudgement, GateSample, GateSettings
from serinus.analysis.model import Judgement, Sample
from serinus.api.canary import CanarySpec


def analyse(spec: CanarySpec, sample: Sample, state: dict[str, Any]) -> Judgement:
    """Return what the evidence says; ``serinus.analysis.judge`` has the contract.

    What it needs is loaded with the first run, so that an operator without one does not carry it.
    """
    from serinus.analysis.judge import judge

    return judge(spec, sample, state)


def judge_gate(settings: GateSettings, sample: GateSample, state: dict[str, Any]) -> GateJudgement:
    """Return what an experiment of the fault gate says so far, see ``serinus.analysis.faultgate``."""
    from serinus.analysis import faultgate

    return faultgate.judge_gate(settings, sample, state)
