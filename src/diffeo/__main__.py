"""`python -m diffeo`: the command line."""

from diffeo.cli import main

if __name__ == "__main__":
    main(prog_name="diffeo")
