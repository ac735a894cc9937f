"""Run the command line as `python -m vidgru`."""

from vidgru.cli import main

if __name__ == "__main__":
    main()
