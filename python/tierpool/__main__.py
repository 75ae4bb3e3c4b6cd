"""``python -m tierpool``: the command line."""

from tierpool.cli import app

app(prog_name="tierpool")
