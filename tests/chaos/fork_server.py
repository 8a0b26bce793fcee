"""What the fork server imports once, so that every worker process starts at once, with the real litellm.

Sound because none of it leaves a thread or a connection behind: `core.llm.client.load` promises that, and a test holds it to it.
"""

from core.llm.client import load
from tests.chaos import worker_main

load()
main = worker_main.main
