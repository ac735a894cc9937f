"""`python scripts/train.py ...` is `vidgru train ...`, for those who like scripts."""

import sys

from vidgru.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
