"""`python -m imkd_edge.cli`, which is how torchrun starts a module."""

from imkd_edge.cli import main

main()
