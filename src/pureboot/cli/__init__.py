"""The `pureboot` command: it parses, calls and prints.

What a command needs is imported where it runs, so that `pureboot --help` loads typer and nothing else.
"""
