"""What echoc does, a module for each of its verbs: its arguments, and `run`, from these to an exit code."""
