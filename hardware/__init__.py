"""Hardware as data: boards, node models, sensor catalogue, scenes; the virtual board lives in `virtual_board`."""
