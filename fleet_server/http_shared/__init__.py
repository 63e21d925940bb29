"""What pages, API and feeds share, so that they need not import each other."""
