"""What the command ends with, besides 0. Signals count as they do in shells."""

BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
