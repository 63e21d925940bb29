"""A board made of software that runs the real firmware on a real MicroPython virtual machine."""
