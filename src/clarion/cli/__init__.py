"""The command line: thin faces over the public API. Nothing heavy is imported before a command runs."""
