"""``python -m pureboot`` is the ``pureboot`` command."""

from pureboot.cli.main import app

if __name__ == "__main__":
    app()
