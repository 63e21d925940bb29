"""What the bench is doing, for a person who watches a terminal; nothing for programs and files."""

from __future__ import annotations

from rich.console import Console


def tell(text: str) -> None:
    """One line on stderr before a step that may take seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        console.print(text, style="dim", highlight=False, markup=False)
