"""`python -m hybridlab`."""

from hybridlab.cli import main

main()
