"""The console that commands print on."""

from __future__ import annotations

from rich.console import Console

console = Console(log_path=False)
