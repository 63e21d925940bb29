"""The database's history, one file per step: expand first, contract a version later."""
