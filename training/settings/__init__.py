"""Settings as YAML files fill them: plain values to dataclasses and back, and the range of every number."""
