"""JSON in and out: the management API, what operations scrape, and the nodes' own listener."""
