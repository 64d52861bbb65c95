"""What the user sees while the demo runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY = 10.0
"""Seconds between lines where there is no terminal to draw a bar on."""
PLAIN_WIDTH = 120


class Update(Protocol):
    """Tells how much is done, and what there is to say about it."""

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        """Report progress; ``total`` changes the total."""


class Screen:
    """Prints stages with their times, and progress: bars on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}
        """Time that each stage took, by title."""

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Head a part of the work, and say at its end how long it took."""
        started = time.monotonic()
        self.console.print(f"[bold]{title}[/bold]")
        yield
        self.seconds[title] = time.monotonic() - started
        self.console.print(f"  [dim]{self.seconds[title]:.0f} s, {time.monotonic() - self.started:.0f} s in all[/dim]")

    def say(self, text: str) -> None:
        """Print a line that belongs to a stage."""
        self.console.print("  " + text, markup=False)

    @contextlib.contextmanager
    def progress(self, unit: str, total: int) -> Iterator[Update]:
        """Show the progress of ``total`` units."""
        if self.console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console) as bar:
                task = bar.add_task(unit, total=total, note="")

                def draw(done: int, note: str = "", total: int | None = None) -> None:
                    bar.update(task, completed=done, note=note, total=total)

                yield draw
        else:
            yield _Lines(self, unit, total)


class _Lines:
    def __init__(self, screen: Screen, unit: str, total: int) -> None:
        self.screen, self.unit, self.total = screen, unit, total
        self.last = time.monotonic()

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        self.total = total or self.total
        if time.monotonic() - self.last >= PLAIN_EVERY or done == self.total:
            self.last = time.monotonic()
            self.screen.say(f"{self.unit} {done:,} of {self.total:,}  {note}".rstrip())
