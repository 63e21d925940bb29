"""That a virtual board cannot be had, in a module that every computer can load."""


class VmUnavailable(RuntimeError):
    """The virtual machine cannot be made ready on this computer; the text says what to do."""
