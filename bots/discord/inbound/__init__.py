"""From the gateway to stored events: nothing lost, nothing out of order in its channel, whatever is interrupted.

`dispatches` takes what the gateway tells and gives it to `ingest`, which keeps back (`holding`) what must wait for its channel's past, and
stores what may concern the bot. What was said while nobody listened is read by `catch_up`: `unread` finds where there is something new,
`history` reads it, `catch_up_calls` keeps these calls few. `cursors` are how far each channel was heard, `spots` which channel is what.
"""
