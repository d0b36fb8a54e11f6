"""One training run: its config, schedule, state, log and command."""
