"""`python -m clipnlc` is `clipnlc`."""

from clipnlc.cli import run

run()
