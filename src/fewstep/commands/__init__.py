"""The command line: one file a command, over recipes and experiments."""
