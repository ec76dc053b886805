"""Evidence in, verdict out. Pure: no I/O, no clock, no logging."""
