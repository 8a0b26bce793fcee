"""What goes out: conversations are brought to the places that show them, whole, in order, once, as live as the platform's limits allow.

`deliveries` knows an account's bindings and starts a `writer` for each place that has something to do. It works in sessions: `picture` is
what should be shown (`history` reads it, `plan` cuts it into parts), `due` says which calls lead there, `calls` makes them, `notes` stores
what was sent. A place's thread is made and named meanwhile (`threads`, `place_calls`): nothing that is said waits long for it. Every call
goes through the `outlet`, which knows the lease and the budgets (`grants`).

A place that follows a conversation which goes on elsewhere is checked first (`checking`), and told what went before (`beginnings`). What
people wrote there and changed elsewhere is told by a line (`theirs`).
"""
