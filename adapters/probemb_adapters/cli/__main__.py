"""`python -m probemb_adapters.cli`, where the command `probemb` is not on the path."""

from probemb_adapters.cli.main import main

if __name__ == "__main__":
    main()
