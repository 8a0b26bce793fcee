"""Discord as a chat surface. `serving.running` is all of it; `config` needs none of Discord's libraries."""
