"""The contract between node and server on the CPython side: topics, packs, states, desired state.

Pure: bytes in, frozen dataclasses out. Imports nothing of ours, touches neither network nor database. The node has its
own codec; both are held to the vectors in `tests/golden/`.
"""
