"""The SDK's commands: `universeg-segment`, the demo, and what all commands share."""
