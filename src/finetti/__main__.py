"""`python -m finetti`."""

from finetti.show.cli import main

if __name__ == "__main__":
    main()
