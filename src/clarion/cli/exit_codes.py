"""What the command ends with, besides 0. Signals count as they do in shells."""

FOUND_FAULTS = 1  # of clarion check: something failed
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
