"""Pages for people: the public list of sites, and the operator's pages below /fleet/."""
