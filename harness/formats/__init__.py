"""Datasets in the formats of others: where the official files are, reading them, writing them."""
