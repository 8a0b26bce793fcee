"""The MCP surface lives here: tasks and chat as tools for IDE assistants, and the client of other MCP servers."""
