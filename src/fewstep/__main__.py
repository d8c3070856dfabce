"""``python -m fewstep`` is the command line."""

from fewstep.commands.main import main

if __name__ == "__main__":
    main()
