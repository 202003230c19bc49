"""`python -m began_cli` is the `began` command."""

from began_cli.cli import main

if __name__ == "__main__":
    main()
