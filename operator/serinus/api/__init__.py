"""The resources as pydantic models; ``crds/*.yaml`` is generated from them."""

from serinus.api.checking import parse_live, problems
from serinus.api.rules import check_canary, check_policy, hint_policy

__all__ = ["check_canary", "check_policy", "hint_policy", "parse_live", "problems"]
