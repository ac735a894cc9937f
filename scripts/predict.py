"""`python scripts/predict.py ...` is `vidgru predict ...`."""

import sys

from vidgru.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
