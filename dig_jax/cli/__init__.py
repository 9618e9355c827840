"""The command line: flags, and a function for each mode."""
