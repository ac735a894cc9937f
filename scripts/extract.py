"""`python scripts/extract.py ...` is `vidgru extract ...`."""

import sys

from vidgru.cli import main

if __name__ == "__main__":
    main(["extract", *sys.argv[1:]])
