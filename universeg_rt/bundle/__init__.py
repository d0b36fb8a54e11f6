"""A bundle on disk: its manifest, models, weights and engines, each checked when it is opened."""
