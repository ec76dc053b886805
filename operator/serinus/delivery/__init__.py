"""The release: revision, plan, state machine and projection. Pure: no I/O, no clock, no logging."""
