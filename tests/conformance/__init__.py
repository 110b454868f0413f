"""One suite for every broker: what the fleet needs of it, what it can't do, and what the fleet makes of that."""
