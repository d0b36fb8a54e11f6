"""What is measured on CPUs: `universeg-bench` with its sides, the time to a first mask, a training step."""
