"""Scores of Schott et al. (ICLR 2022): R² and mean squared error per factor, as sums that stream, in float64."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from harness.scoring.baselines import baselines
from harness.scoring.maps import ErrorMaps
from harness.scoring.r2 import finite, finite_mean, grid_variance, per_factor
from harness.scoring.records import CountGroup, DistanceError, Errors, Groups, Modularity, PerFactor
from harness.scoring.sampling import sample
from splits import FactorGrid, Split
from splits.errors import InputError, NumericalError, shown

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

READY = 65_536  # predictions that are scored at a time
IMAGES_HELD = 2**28  # bytes of the images that are scored: more follow when these are done

Side = Literal["train", "test"]
LARGEST_PREDICTION = 1e70  # squared and summed, it is still finite, and so are means and deviations of it


class Scorer:
    """Scores from predictions that come in batches, none of which is kept.

    Args:
        split: whose samples are scored.
    """

    def __init__(self, split: Split) -> None:
        self.split, self.grid = split, split.grid
        factors = len(self.grid.sizes)
        self.n = 0
        self.squared_error = np.zeros(factors)
        self.target_sum, self.target_squares = np.zeros(factors), np.zeros(factors)
        # Of each sample's share of 1 − R²: of every factor, of their mean, of the mean without categorical factors. Sums of squares.
        self.loss_squares = np.zeros(factors + 2)
        self.any = split.test_if == "any"
        if self.any:  # what follows only makes sense where any held-out value makes a sample test
            self._steps = [split.steps(name) for name in self.grid.names]
            self.by_count = np.zeros((factors + 1, factors))
            self.n_by_count = np.zeros(factors + 1, dtype=np.int64)
            self.by_only = np.zeros((factors, factors))  # row f: samples where f, and only f, is held out
            self.n_by_only = np.zeros(factors, dtype=np.int64)
            self.by_steps = [np.zeros(steps.max() + 1) for steps in self._steps]
            self.n_by_steps = [np.zeros(steps.max() + 1, dtype=np.int64) for steps in self._steps]

    def update(self, indices: NDArray[np.int64], predictions: ArrayLike) -> None:
        """Take in the predictions (B, F) of the samples `indices` (B,).

        Raises:
            ValueError: for predictions of another shape.
            FloatingPointError: for predictions that are not finite, or beyond ±1e70.
        """
        predicted = checked(self.grid, indices, predictions)
        targets = self.grid.targets(indices)
        squares = (predicted - targets) ** 2
        self.n += len(indices)
        self.squared_error += squares.sum(axis=0)
        self.target_sum += targets.sum(axis=0)
        self.target_squares += (targets**2).sum(axis=0)
        self.loss_squares += (self._losses(squares) ** 2).sum(axis=0)
        if self.any:
            self._update_groups(self.grid.factors(indices), squares)

    def _update_groups(self, factors: NDArray[np.int64], squares: NDArray[np.float64]) -> None:
        steps = np.stack([table[values] for table, values in zip(self._steps, factors.T, strict=True)], axis=1)
        held_out = steps > 0
        count = held_out.sum(axis=1)
        np.add.at(self.by_count, count, squares)
        self.n_by_count += np.bincount(count, minlength=len(self.n_by_count))
        alone = count == 1
        which = held_out[alone].argmax(axis=1)
        np.add.at(self.by_only, which, squares[alone])
        self.n_by_only += np.bincount(which, minlength=len(self.n_by_only))
        for axis, (sums, numbers) in enumerate(zip(self.by_steps, self.n_by_steps, strict=True)):
            sums += np.bincount(steps[:, axis], squares[:, axis], len(sums))
            numbers += np.bincount(steps[:, axis], minlength=len(numbers))

    def errors(self) -> Errors:
        """The errors over all samples so far. A factor of one value has none; scikit-learn's R² takes two samples.

        Raises:
            ValueError: if there are none.
        """
        if not self.n:
            raise InputError(f"no sample of {self.split.dataset}, {self.split.kind} was scored")
        mse = self.squared_error / self.n
        variance = np.maximum(self.target_squares / self.n - (self.target_sum / self.n) ** 2, 0)
        constant = variance < 1e-15
        # Where the target is constant scikit-learn says 1 for a perfect prediction and 0 for any other.
        sklearn = np.where(constant, mse == 0, 1 - mse / np.where(constant, 1, variance))
        varies = np.array(self.grid.sizes) > 1
        return Errors(
            n=self.n,
            r2=per_factor(self.grid, self._r2(mse)),
            r2_sklearn=per_factor(self.grid, np.where(varies & (self.n > 1), sklearn, np.nan)),
            mse=per_factor(self.grid, np.where(varies, mse, np.nan)),
        )

    def sampling_error(self, population: int) -> PerFactor:
        """The standard error of R² that comes from scoring a sample of so many samples: 0 where all were scored, None of fewer than two."""
        mse = self.squared_error / max(self.n, 1)
        variance = np.maximum(self.loss_squares / max(self.n, 1) - self._losses(mse) ** 2, 0)
        left = 1 - self.n / population
        errors = np.sqrt(variance * left / max(self.n - 1, 1)) if self.n > 1 else np.full(len(variance), np.nan)
        *factors, mean, ordinal = (finite(error) for error in errors)
        return PerFactor(mean=mean, mean_excl_categorical=ordinal, factors=dict(zip(self.grid.names, factors, strict=True)))

    def _losses(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """(…, F + 2) from squared errors (…, F)."""
        losses = squares / grid_variance(self.grid)
        varies = np.array(self.grid.sizes) > 1
        ordinal = varies & np.array([kind == "ordinal" for kind in self.grid.kinds])
        means = [losses[..., chosen].sum(axis=-1, keepdims=True) / max(chosen.sum(), 1) for chosen in (varies, ordinal)]
        return np.concatenate([losses, *means], axis=-1)

    def groups(self) -> Groups:
        """The scores of all samples so far, by how many factors are held out, which one alone, and how far."""
        if not self.any:
            return Groups()
        modularity = {}
        for axis, name in enumerate(self.grid.names):
            if self.n_by_only[axis]:
                r2 = self._r2(self.by_only[axis] / self.n_by_only[axis])
                modularity[name] = Modularity(ood=finite(r2[axis]), id=finite_mean(np.delete(r2, axis)))
        by_count = {
            str(count): CountGroup(n=int(n), r2=finite_mean(self._r2(self.by_count[count] / n)))
            for count, n in enumerate(self.n_by_count)
            if n
        }
        by_distance = tuple(
            DistanceError(steps=steps, factor=name, mse=float(squares / n), n=int(n))
            for name, sums, numbers in zip(self.grid.names, self.by_steps, self.n_by_steps, strict=True)
            for steps, (squares, n) in enumerate(zip(sums, numbers, strict=True))
            if n
        )
        return Groups(modularity=modularity, by_held_out_count=by_count, by_distance=by_distance)

    def _r2(self, mse: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 - mse / grid_variance(self.grid)


def checked(grid: FactorGrid, indices: NDArray[np.int64], predictions: ArrayLike) -> NDArray[np.float64]:
    """The predictions (B, F) of the samples `indices` (B,), in float64.

    Raises:
        ValueError: for predictions of another shape.
        FloatingPointError: for predictions that are not finite, or beyond ±1e70.
    """
    wanted = f"predictions of shape {(len(indices), len(grid.sizes))} are expected ({', '.join(grid.names)})"
    try:
        predicted = np.asarray(predictions, dtype=np.float64)
    except (TypeError, ValueError) as error:  # a tensor with something else beside it, a dict, words
        raise InputError(f"{wanted}, got a {type(predictions).__name__} that is no array of numbers") from error
    if predicted.shape != (len(indices), len(grid.sizes)):
        raise InputError(f"{wanted}, got {predicted.shape}")
    fine = np.abs(predicted) <= LARGEST_PREDICTION  # False for nan
    if not fine.all():
        reason = "not finite" if not np.isfinite(predicted).all() else f"beyond ±{LARGEST_PREDICTION:g}"
        raise NumericalError(f"predictions are {reason}, first for sample {indices[~fine.all(axis=1)][0]}")
    return predicted


def score(
    predict: Callable[[Tensor], ArrayLike | Tensor] | ArrayLike | Tensor,
    data: Dataset,
    split: Split | str,
    *,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Score predictions on the test side of a split.

    Args:
        predict: images (B, C, 64, 64) float32 tensor in [0, 1] on `device` → (B, F), a tensor or anything numpy takes. Called without
            gradients; a module is in eval mode meanwhile. Or the predictions themselves, (n_test, F), in the order of `split.test`.
        data: an open dataset, `harness.open`.
        split: of that dataset, `data.split(kind)`, or its kind.
        limit: score a sample of at most so many, drawn by `seed`; None scores all.
        seed: of that sample.
        batch_size: images per call.
        device: where the images are wanted.

    Returns:
        {"n_test", "r2", "r2_sklearn", "mse", "reference", "modularity", "by_held_out_count", "by_distance"}, plain data: R² by the
        benchmark's definition and scikit-learn's, each {"mean", "mean_excl_categorical", "factors"}; what trivial predictors get
        (`harness.scoring.baselines`); and the groups of `harness.scoring.records.Groups`.

    Raises:
        ValueError: for predictions of another shape, a split of another grid, a limit below 1, or a device that can't be used.
        FloatingPointError: for predictions that are not finite.
    """
    if isinstance(split, str):
        split = data.split(split)
    if not isinstance(split, Split):
        raise InputError(f"a split such as data.split('extrapolation') is expected, or its kind, not {shown(split)}")
    if not callable(predict):
        scorer = _scored_ready(predict, split, limit, seed)
    else:
        with _evaluating(predict):
            scorer = scored(predict, data, split, "test", limit, seed, batch_size, device)
    errors = scorer.errors().to_dict()
    reference = {name: baseline.to_dict() for name, baseline in baselines(split).items()}
    return {"n_test": errors.pop("n"), **errors, "reference": reference, **scorer.groups().to_dict()}


def _scored_ready(predictions: ArrayLike | Tensor, split: Split, limit: int | None, seed: int) -> Scorer:
    """A scorer that has seen predictions for the test side of a split, in its order."""
    expected = (len(split.test), len(split.grid.sizes))
    wanted = f"a function of images is expected, or predictions {expected} in the order of split.test, not"
    try:
        values = predictions.detach().cpu().numpy() if isinstance(predictions, Tensor) else np.asarray(predictions)
    except (TypeError, ValueError) as error:  # lists of several lengths, bfloat16
        raise InputError(f"{wanted} a {type(predictions).__name__} that numpy makes no array of: {error}") from error
    if values.shape != expected:
        raise InputError(f"{wanted} {values.dtype} {values.shape}")
    scorer = Scorer(split)
    indices = sample(split.test, limit, seed)
    places = np.searchsorted(split.test, indices)
    for first in range(0, len(indices), READY):
        part = indices[first : first + READY]
        scorer.update(part, checked(split.grid, part, values[places[first : first + READY]]))
    return scorer


@contextlib.contextmanager
def _evaluating(predict: Callable[..., object]) -> Iterator[None]:
    """Within, a module is in eval mode: batch norms and dropout of training would falsify its scores. Its parts keep their own modes."""
    modes = {part: part.training for part in predict.modules()} if isinstance(predict, torch.nn.Module) else {}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def scored(
    predict: Callable[[Tensor], ArrayLike | Tensor],
    data: Dataset,
    split: Split,
    side: Side,
    limit: int | None,
    seed: int,
    batch_size: int,
    device: str | torch.device,
    maps: ErrorMaps | None = None,
) -> Scorer:
    """A scorer that has seen one side of the split, as have `maps`; the other arguments as `score`."""
    if split.grid.sizes != data.spec.grid.sizes:
        raise InputError(f"the split is of a grid of {split.grid.sizes}, but {data.name} has {data.spec.grid.sizes}")
    scorer = Scorer(split)
    indices = sample(split.test if side == "test" else split.train, limit, seed)
    for part, predictions in answers(predict, data, indices, batch_size, device):
        scorer.update(part, predictions)
        if maps is not None:
            maps.update(part, predictions)
    return scorer


def answers(
    predict: Callable[[Tensor], ArrayLike | Tensor],
    data: Dataset,
    indices: NDArray[np.int64],
    batch_size: int,
    device: str | torch.device,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The samples `indices`, a batch at a time, with what is predicted for them; errors as of `checked`."""
    batches = IMAGES_HELD // (max(1, batch_size) * math.prod(data.images.shape[1:]))  # that are held at a time
    some = max(1, batches) * max(1, batch_size)
    with torch.inference_mode():
        for first in range(0, len(indices), some):
            part = indices[first : first + some]
            start = 0
            for images, _ in data.batches(part, batch_size, shuffle=False, device=device):
                predictions = predict(images)
                if isinstance(predictions, Tensor):
                    predictions = predictions.double().cpu().numpy()
                batch = part[start : start + len(images)]
                yield batch, checked(data.spec.grid, batch, predictions)
                start += len(images)
