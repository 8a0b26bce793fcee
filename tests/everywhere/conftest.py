"""One task in Slack, in Discord, on two pages, in a terminal and in an IDE: see test_scene.py."""

from tests.databases import on_both
from tests.emulators.discord import discord
from tests.emulators.slack import slack, slack_process

__all__ = ["discord", "on_both", "slack", "slack_process"]
