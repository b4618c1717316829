"""`python -m sparsebert`, which is the `sparsebert` command."""

from sparsebert.cli import main

main()
