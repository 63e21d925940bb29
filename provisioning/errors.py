"""What can go wrong at the bench; each text is one sentence for the person standing there."""


class BenchError(Exception):
    """The command cannot be done; it ends with exit 1 and this sentence."""


class UsedWrongly(BenchError):
    """What was typed cannot be; the command ends with exit 2 and this sentence."""
