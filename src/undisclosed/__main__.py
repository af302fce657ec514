"""`python -m undisclosed`."""

from undisclosed.cli import main

if __name__ == "__main__":
    main()
