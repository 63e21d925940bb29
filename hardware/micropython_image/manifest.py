# What is frozen into our own MicroPython image, beside what is C code there. Read by MicroPython's build (docs/technician/own_image.md).
# Not tried on hardware.

# From MicroPython: the flash as a block device, and 1-Wire. Not its _boot.py, in whose place ours stands.
freeze("$(PORT_DIR)/modules", ("flashbdev.py",))
require("onewire")

freeze(".", ("_boot.py", "first_mount.py"))

# The firmware as it was when the image was made: what runs when the file system had to be made anew. A slot goes before it.
for name in ("boot.py", "main.py", "slots.py", "judge.py"):
    module(name, base_path="../../firmware")
package("node", base_path="../../firmware")
