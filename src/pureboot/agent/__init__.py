"""The site agent: what stands on the machines' own LAN. Names are those of the user's contract."""
