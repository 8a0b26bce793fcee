"""The chat surfaces live here: Slack and Discord, each in a folder of its own, over one delivery."""
