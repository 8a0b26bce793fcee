"""Stand-ins for the vendors: each a server on 127.0.0.1 that says what a test scripts, and remembers what it was asked."""
