"""Workers that are killed, stopped and lied to, on one database that goes away: what a person sees must come out right all the same."""
