"""The command line from a checkout: `python cli.py …` is `ood-data …`. The commands are in `ood_data.commands`."""

from ood_data.commands import run

if __name__ == "__main__":
    run()
else:
    from ood_data.commands import main

    __all__ = ["main"]  # to be called from Python
