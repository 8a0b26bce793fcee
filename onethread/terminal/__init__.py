"""The terminal surface: `onethread chat` for a person at a screen, for a program that pipes JSON, and for plain pipes."""
