"""`python -m reserve_listener`."""

from reserve_listener.cli.main import main

if __name__ == "__main__":
    main()
