"""Training a generator: see `training.cli` for the command, `training.trainer` for the loop."""
