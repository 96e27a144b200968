"""`python -m strop.cli`: the same as `strop`."""

from strop.cli.main import main

main()
