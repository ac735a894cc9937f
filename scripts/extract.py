"""`python scripts/extract.py ...` is `vidgru extract ...`, for those who like scripts."""

import sys

from vidgru.cli import main

if __name__ == "__main__":
    main(["extract", *sys.argv[1:]])
