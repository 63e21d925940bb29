"""What the city decides on: pure arithmetic on observations and weather. Arrays in, arrays out.

May import `measurement` and NumPy, nothing else of ours: no database, no clock, no network. Whoever asks gives what was known.
"""
