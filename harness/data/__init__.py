"""The store of a dataset, and the ways to feed its images to training."""
