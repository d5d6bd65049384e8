"""`python -m ood_data` is `ood-data`."""

from ood_data.commands import run

if __name__ == "__main__":
    run()
