"""`python -m mufx` is the `mufx` command."""

from mufx.cli import main

main()
