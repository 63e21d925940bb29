"""What is at the board's end of the cable: the serial port with its doors, the ROM loader, MicroPython's console."""
