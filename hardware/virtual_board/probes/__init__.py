"""Driver-level models of probes: what their wire would carry, byte by byte and microvolt by microvolt.

Each stands behind a protocol of `hardware.virtual_board.wiring`, takes the truth from a scene as a function of UTC and
turns it back into what a driver must read. Formulas come from data sheets and papers, never from the server's.
"""
