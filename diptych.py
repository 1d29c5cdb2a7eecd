"""The command `diptych`, importable so that `deepspeed --module diptych train ...` reads well."""

import sys

from shared.guard import ShadowedPackage, check_packages


def main() -> None:
    """Check that our plain package names are ours, then run the command."""
    try:
        check_packages()
    except ShadowedPackage as error:
        sys.exit(f"diptych: {error}")
    from shared.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
