"""Commands of the SDK."""
