"""`python scripts/train.py ...` is `vidgru train ...`."""

import sys

from vidgru.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
