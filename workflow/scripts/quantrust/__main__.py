"""The entry of the console command: Ctrl-C ends it without a traceback while it still imports what it needs, too."""

import sys

from quantrust.errors import INTERRUPTED


def main() -> int:
    """Run the console command; returns the exit code as `quantrust.cli.main` does."""
    try:
        from quantrust.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
