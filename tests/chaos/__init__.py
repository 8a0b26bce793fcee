"""Workers that are killed, stopped and lied to, on one database file: what a person sees must come out right all the same."""
