"""The names of the reference models, readable without torch, so that a misspelt name is reported at once."""

# In the order in which they are listed and run. That the families register just these is tested.
NAMES = (
    "mlp",
    "cnn",
    "coordconv",
    "coordinate-based",
    "spatial-transformer",
    "rotation-eq",
    "rotation-eq-big",
    "resnet50",
    "resnet101",
    "densenet121",
    "resnet50-in21k",
    "resnet101-in21k",
    "densenet121-in1k",
    "beta-vae",
    "ada-gvae",
    "slowvae",
    "pcl",
)
