"""The MCP surface: tasks and chat as tools for IDE assistants. The only home of `mcp`; it knows the core and nothing else of ours."""
