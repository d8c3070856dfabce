"""``python -m fewstep`` is the command line."""

from fewstep.cli import main

if __name__ == "__main__":
    main()
