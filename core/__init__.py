"""What Onethread does: tasks, conversations, turns, tools and LLM calls. No SQL, no chat SDK, no web framework."""
