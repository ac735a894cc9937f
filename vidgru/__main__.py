"""`python -m vidgru` is the command `vidgru`."""

from vidgru.cli import main

if __name__ == "__main__":
    main()
