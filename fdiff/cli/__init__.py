"""The `fdiff` command, a file for each thing that it does."""

from fdiff.cli.commands import main, parser

__all__ = ["main", "parser"]
