"""The tools that a model may call: each one decorated function, gathered into toolsets."""
