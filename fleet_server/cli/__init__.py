"""Commands: wire the parts and run them, nothing else."""
