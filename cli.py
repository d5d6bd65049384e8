"""The command line from a checkout: `python cli.py …` is `ood-data …`. The commands are in `ood_data.commands`."""

from ood_data.commands import main, run

__all__ = ["main"]

if __name__ == "__main__":
    run()
