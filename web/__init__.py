"""The web surface: HTTP API, live WebSocket, sign-in. It translates and decides nothing."""
