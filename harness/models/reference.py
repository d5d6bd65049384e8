"""The 17 reference models of Schott et al. (ICLR 2022): what each is, its options, and what of it is our reconstruction.

To say so takes no torch, whose import takes seconds: a builder imports the networks when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.models.registry import FINE_TUNED, READ_OUT, SUPERVISED, register
from harness.models.weights import PRETRAINED

if TYPE_CHECKING:
    from torch import nn

# A core trains timm's networks on tens of images a second: small batches make the most of them. So few steps leave much to chance, and
# bf16, which saves a sixth of the time, leaves more: on CelebGlow, random, two seeds, R² of ResNet-101 is .17 and .29, and .62 and .62 in
# fp32; of DenseNet-121 .36 and .60, and .55 and .65.
OF_TIMM: dict[str, Any] = {"quick_learning_rate": 1e-3, "quick_batch": 16, "quick_precision": "fp32", "requires": "timm"}


@register(
    "mlp",
    family="supervised",
    parameters=1_132_743,
    summary="pixels, flattened, through 4 hidden layers of 90 and one of 22",
    reconstruction=f"widths; {SUPERVISED}",
    quick_steps=1500,
)
def mlp(in_channels: int, num_outputs: int, widths: Sequence[int] = (90, 90, 90, 90, 22)) -> nn.Module:
    """Fully connected, ReLU between; `widths` of the hidden layers."""
    from harness.models import convolutional

    return convolutional.mlp(in_channels, num_outputs, widths)


@register(
    "cnn",
    family="supervised",
    parameters=380_615,
    summary="the benchmark's CNN: 5 convolutions, one linear layer",
    reconstruction=SUPERVISED,
)
def cnn(in_channels: int, num_outputs: int) -> nn.Module:
    """The CNN of the benchmark's repository (bethgelab/InDomainGeneralizationBenchmark)."""
    from harness.models import convolutional

    return convolutional.cnn(in_channels, num_outputs)


@register(
    "coordconv",
    family="supervised",
    parameters=394_951,
    summary="cnn with x and y concatenated before convolutions (Liu et al., 2018)",
    reconstruction=f"coordinates go in before every convolution; {SUPERVISED}",
)
def coordconv(in_channels: int, num_outputs: int, coordinates_at: Sequence[int] = (0, 1, 2, 3, 4)) -> nn.Module:
    """`coordinates_at`: the convolutions, from 0, that see the coordinates."""
    from harness.models import convolutional

    return convolutional.CoordinateCNN(in_channels, num_outputs, coordinates_at)


@register(
    "coordinate-based",
    family="supervised",
    parameters=381_639,
    summary="cnn whose input signal includes the coordinates",
    reconstruction=f"what the network is: ours is cnn with coordinates at the input only; {SUPERVISED}",
)
def coordinate_based(in_channels: int, num_outputs: int, coordinates_at: Sequence[int] = (0,)) -> nn.Module:
    """`coordinates_at`: the convolutions, from 0, that see the coordinates."""
    from harness.models import convolutional

    return convolutional.CoordinateCNN(in_channels, num_outputs, coordinates_at)


@register(
    "spatial-transformer",
    family="supervised",
    parameters=430_765,
    summary="an affine localisation network resamples the image for cnn (Jaderberg et al., 2015)",
    reconstruction=f"the localisation network; {SUPERVISED}",
)
def spatial_transformer(
    in_channels: int, num_outputs: int, widths: Sequence[int] = (16, 32, 32, 32), hidden: int = 16
) -> nn.Module:
    """`widths` of the localisation network's convolutions (k4 s2 p1), `hidden` units before its six outputs."""
    from harness.models import convolutional

    return convolutional.SpatialTransformer(in_channels, num_outputs, widths, hidden)


@register(
    "rotation-eq",
    family="supervised",
    parameters=96_503,
    summary="C4 group convolutions at about cnn's compute",
    reconstruction=f"the group, the fields per layer, the head; {SUPERVISED}",
)
def rotation_eq(in_channels: int, num_outputs: int, fields: Sequence[int] = (8, 8, 16, 16, 64)) -> nn.Module:
    """`fields` per layer; a field has 4 channels."""
    from harness.models import equivariant

    return equivariant.RotationEquivariantCNN(in_channels, num_outputs, fields)


@register(
    "rotation-eq-big",
    family="supervised",
    parameters=1_516_487,
    summary="rotation-eq with as many fields as cnn has channels",
    reconstruction=f"the group, the fields per layer, the head; {SUPERVISED}",
    quick_steps=150,
    quick_learning_rate=2e-4,  # at 1e-3 its features die, and it answers the mean
    quick_batch=16,
)
def rotation_eq_big(in_channels: int, num_outputs: int, fields: Sequence[int] = (32, 32, 64, 64, 256)) -> nn.Module:
    """`fields` per layer; a field has 4 channels."""
    from harness.models import equivariant

    return equivariant.RotationEquivariantCNN(in_channels, num_outputs, fields)


@register(
    "resnet50",
    family="supervised",
    parameters=23_522_375,
    summary="ResNet-50 from scratch (timm)",
    reconstruction=f"the last batch norm of a block starts at zero, as timm has it (model.zero_init_last); {SUPERVISED}",
    quick_steps=80,
    later=("zero_init_last",),
    **OF_TIMM,
)
def resnet50(in_channels: int, num_outputs: int, zero_init_last: bool = True) -> nn.Module:
    """He et al. (2016). `zero_init_last`: the last batch norm of each block starts at zero, timm's default, and not at one."""
    from harness.models import backbones

    return backbones.create("resnet50", in_channels, num_outputs, zero_init_last=zero_init_last)


@register(
    "resnet101",
    family="supervised",
    parameters=42_514_503,
    summary="ResNet-101 from scratch (timm)",
    reconstruction=f"the last batch norm of a block starts at zero, as timm has it (model.zero_init_last); {SUPERVISED}",
    quick_steps=60,
    later=("zero_init_last",),
    **OF_TIMM,
)
def resnet101(in_channels: int, num_outputs: int, zero_init_last: bool = True) -> nn.Module:
    """He et al. (2016). `zero_init_last`: the last batch norm of each block starts at zero, timm's default, and not at one."""
    from harness.models import backbones

    return backbones.create("resnet101", in_channels, num_outputs, zero_init_last=zero_init_last)


@register(
    "densenet121",
    family="supervised",
    parameters=6_961_031,
    summary="DenseNet-121 from scratch (timm)",
    reconstruction=SUPERVISED,
    quick_steps=60,
    **OF_TIMM,
)
def densenet121(in_channels: int, num_outputs: int) -> nn.Module:
    """Huang et al. (2017)."""
    from harness.models import backbones

    return backbones.create("densenet121", in_channels, num_outputs)


@register(
    "resnet50-in21k",
    family="pretrained",
    parameters=23_514_695,
    summary="BiT ResNet-v2 50x1, ImageNet-21k (timm)",
    reconstruction=f"which weights: BiT's; {FINE_TUNED}",
    quick_steps=80,
    later=("freeze",),
    **OF_TIMM,
)
def resnet50_in21k(in_channels: int, num_outputs: int, weights: str | None = "", freeze: bool = False) -> nn.Module:
    """Kolesnikov et al. (2020). `weights`: a local file, or a folder that has it; otherwise the Hugging Face hub and its cache.
    `freeze`: train the last layer only."""
    from harness.models import backbones

    return backbones.pretrained(PRETRAINED["resnet50-in21k"], in_channels, num_outputs, weights, freeze)


@register(
    "resnet101-in21k",
    family="pretrained",
    parameters=42_506_823,
    summary="BiT ResNet-v2 101x1, ImageNet-21k (timm)",
    reconstruction=f"which weights: BiT's; {FINE_TUNED}",
    quick_steps=60,
    later=("freeze",),
    **OF_TIMM,
)
def resnet101_in21k(in_channels: int, num_outputs: int, weights: str | None = "", freeze: bool = False) -> nn.Module:
    """Kolesnikov et al. (2020). `weights`: a local file, or a folder that has it; otherwise the Hugging Face hub and its cache.
    `freeze`: train the last layer only."""
    from harness.models import backbones

    return backbones.pretrained(PRETRAINED["resnet101-in21k"], in_channels, num_outputs, weights, freeze)


@register(
    "densenet121-in1k",
    family="pretrained",
    parameters=6_961_031,
    summary="DenseNet-121, ImageNet-1k (torchvision's weights, through timm)",
    reconstruction=f"which weights: torchvision's; {FINE_TUNED}",
    quick_steps=60,
    later=("freeze",),
    **OF_TIMM,
)
def densenet121_in1k(in_channels: int, num_outputs: int, weights: str | None = "", freeze: bool = False) -> nn.Module:
    """Huang et al. (2017). `weights`: a local file, or a folder that has it; otherwise the Hugging Face hub and its cache.
    `freeze`: train the last layer only."""
    from harness.models import backbones

    return backbones.pretrained(PRETRAINED["densenet121-in1k"], in_channels, num_outputs, weights, freeze)


@register(
    "beta-vae",
    family="representation",
    parameters=765_335,
    summary="β-VAE (Higgins et al., 2017), read out by an MLP",
    reconstruction=f"β = 4 (slow_disentanglement takes 8, found by UDR); {READ_OUT}",
    quick_steps=250,
)
def beta_vae(in_channels: int, num_outputs: int, latents: int = 10, beta: float = 4.0) -> nn.Module:
    """`beta` weighs the KL; disentanglement_lib's grid is 1, 2, 4, 6, 8, 16."""
    from harness.models import representation

    return representation.BetaVAE(in_channels, num_outputs, latents, beta)


@register(
    "ada-gvae",
    family="representation",
    parameters=765_335,
    summary="Ada-GVAE (Locatello et al., 2020): pairs that share most factors share their posteriors there",
    reconstruction=f"β = 1, where soft_tpr's 1 is our 4, as its KL lacks the halves; k = 1 changed factor per pair; {READ_OUT}",
    quick_steps=100,
)
def ada_gvae(in_channels: int, num_outputs: int, latents: int = 10, beta: float = 1.0, k: int = 1) -> nn.Module:
    """`beta` weighs the KL; `k` factors change within a pair, −1: uniformly 1 to F − 1."""
    from harness.models import representation

    return representation.AdaGVAE(in_channels, num_outputs, latents, beta, k)


@register(
    "slowvae",
    family="representation",
    parameters=765_335,
    summary="SlowVAE (Klindt et al., 2021): sparse Laplace transitions between the latents of a pair",
    reconstruction=f"64 pairs a step, nothing need change in one (its authors: 32, something does: model.unchanged=false); {READ_OUT}",
    quick_steps=100,
    later=("unchanged",),
)
def slow_vae(
    in_channels: int,
    num_outputs: int,
    latents: int = 10,
    beta: float = 1.0,
    gamma: float = 10.0,
    rate: float = 6.0,
    unchanged: bool = True,
) -> nn.Module:
    """`beta` and `gamma` weigh the KL to the normal prior and the cross-entropy to the Laplace, of that `rate`; `unchanged`: pairs may
    be twice the same image, see `harness.data.pairs.LaplaceSteps`."""
    from harness.models import representation

    return representation.SlowVAE(in_channels, num_outputs, latents, beta, gamma, rate, unchanged)


@register(
    "pcl",
    family="representation",
    parameters=383_956,
    summary="permutation contrastive learning (Hyvärinen & Morioka, 2017): tells Laplace pairs from shuffled ones",
    reconstruction=f"latents are not normalised; the pairs are SlowVAE's; {READ_OUT}",
    later=("unchanged",),
)
def pcl(in_channels: int, num_outputs: int, latents: int = 10, batch_norm: bool = False, unchanged: bool = True) -> nn.Module:
    """`batch_norm`: normalise each latent over the batch. The loss needs no help: its h² holds the scale of h at 0.5 to 0.8.
    `unchanged`: pairs may be twice the same image, see `harness.data.pairs.LaplaceSteps`."""
    from harness.models import representation

    return representation.PCL(in_channels, num_outputs, latents, batch_norm, unchanged)
