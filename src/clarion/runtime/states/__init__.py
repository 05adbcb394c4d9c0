"""The state of a sequence: what the machine remembers of its tokens, of whatever kinds a program declares."""
