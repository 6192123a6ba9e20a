"""`python -m compose`."""

from compose.cli import app

if __name__ == "__main__":
    app(prog_name="python -m compose")
