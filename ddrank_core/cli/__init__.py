"""The launcher: one module per command, each imported when it is the one that runs."""
