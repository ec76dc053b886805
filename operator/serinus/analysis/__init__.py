"""Evidence in, verdict out. Pure: no I/O, no clock, no logging."""

from serinus.analysis.thresholds import judge as judge
