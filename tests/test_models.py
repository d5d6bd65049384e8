"""The reference models: their shapes, sizes and symmetries, and that they can learn."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from harness import models
from harness.models.equivariant import ROTATIONS
from harness.models.lookup import code_hash
from harness.models.registry import register
from harness.runs.execution import weights_of

HERE = [name for name, model in models.MODELS.items() if model.family != "pretrained"]
HEAVY = {"resnet50": 1e-3, "resnet101": 1e-3, "densenet121": 1e-3, "rotation-eq-big": 3e-4}  # learning rates


def built(
    name: str, in_channels: int = 3, num_outputs: int = 7, **options: object
) -> Any:  # torch does not type a module's attributes
    torch.manual_seed(0)
    return models.find(name).build(in_channels, num_outputs, **options)


def parameters(network: nn.Module) -> int:
    """As the paper's table counts them: without the readout, and without PCL's own regression."""
    counted = (p for name, p in network.named_parameters() if not name.startswith("readout.") and name not in "abcm")
    return sum(p.numel() for p in counted)


def test_there_are_17() -> None:
    assert [(family, len(members)) for family, members in models.families()] == [
        ("supervised", 10),
        ("pretrained", 3),
        ("representation", 4),
    ]
    assert len(models.MODELS) == 17


@pytest.mark.parametrize("name", HERE)
def test_shapes_and_sizes(name: str) -> None:
    network = built(name).eval()
    assert parameters(network) == models.find(name).parameters
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    assert built(name, 1, 5).eval()(torch.rand(3, 1, 64, 64)).shape == (3, 5)


@pytest.mark.parametrize("name", [name for name in HERE if name not in HEAVY and models.find(name).family == "supervised"])
def test_it_can_learn_a_few_images_by_heart(name: str) -> None:
    assert overfitted(name, steps=300) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_one_can_learn_a_few_images_by_heart(name: str) -> None:
    assert overfitted(name, steps=100, learning_rate=HEAVY[name]) < 0.02


def overfitted(name: str, steps: int, learning_rate: float = 1e-3) -> float:
    """Mean squared error on the 8 random images that it was trained on; 1/12 is guessing the mean."""
    network = built(name, 1, 3)
    images, targets = torch.rand(8, 1, 64, 64), torch.rand(8, 3)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    for _ in range(steps):
        loss = (network(images) - targets).square().mean()
        if loss < 1e-3:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("name", ["rotation-eq", "rotation-eq-big"])
def test_turning_the_image_turns_the_features_and_rolls_their_fields(name: str) -> None:
    network = built(name).double()
    features = network.features[:-1]  # before it flattens
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    upright = images
    for layer in features:
        upright = layer(upright)
        fields = upright.unflatten(1, (-1, ROTATIONS))
        turned = images.rot90(dims=(2, 3))
        for each in features:
            turned = each(turned)
            if each is layer:
                break
        expected = fields.rot90(dims=(3, 4)).roll(1, dims=2).flatten(1, 2)
        torch.testing.assert_close(turned, expected, rtol=1e-12, atol=1e-12)


def test_rotation_eq_can_tell_orientations_apart() -> None:
    network = built("rotation-eq").eval()
    images = torch.rand(2, 3, 64, 64)
    assert not torch.allclose(network(images), network(images.rot90(dims=(2, 3))), atol=1e-4)


def test_the_spatial_transformer_starts_as_the_identity() -> None:
    network = built("spatial-transformer").eval()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(network(images), network.cnn(images), rtol=1e-4, atol=1e-5)


def test_coordinates_make_the_difference_between_places() -> None:
    network = built("coordinate-based")
    assert parameters(built("coordinate-based", coordinates_at=[0, 1, 2, 3, 4])) == models.find("coordconv").parameters
    with torch.no_grad():
        network.convolutions[0].weight[:, :3] = 0  # nothing of the image is left
        assert network.convolutions[0].weight[:, 3:].abs().sum() > 0
        one, other = network(torch.rand(1, 3, 64, 64)), network(torch.rand(1, 3, 64, 64))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="0 to 4"):
        built("coordconv", coordinates_at=[7])


def test_a_miss_names_what_is_close() -> None:
    with pytest.raises(ValueError, match="did you mean 'ada-gvae'"):
        models.find("adagvae")
    with pytest.raises(ValueError, match=r"slowvae has no option model.gama; did you mean 'gamma'"):
        models.find("slowvae").resolve({"gama": 3})
    assert models.find("slowvae").resolve({"gamma": 3}) == {"latents": 10, "beta": 1.0, "gamma": 3, "rate": 6.0, "unchanged": True}


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register("cnn", family="supervised", summary="")(lambda in_channels, num_outputs: nn.Identity())


def test_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def build(in_channels, num_outputs, width=4, **config):\n"
        '    "A line about it."\n'
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 4096, num_outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    model = models.find("my_networks:build")
    assert (model.family, model.summary, model.options) == ("user", "A line about it.", {"width": 4})
    assert model.resolve({"depth": 2}) == {"width": 4, "depth": 2}
    assert model.code == (tmp_path / "my_networks.py",)
    with pytest.raises(ValueError, match="has no function 'biuld'; did you mean 'build'"):
        models.find("my_networks:biuld")
    with pytest.raises(ValueError, match="can't import 'absent'"):
        models.find("absent:build")


def test_what_a_model_of_ones_own_imports_from_its_folder_is_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "mine/__init__.py": "",
        "mine/network.py": "import os\nfrom torch import nn\nfrom . import layers\nfrom .deep.blocks import Block\nbuild = nn.Linear\n",
        "mine/layers.py": "import my_helpers\n",
        "mine/deep/__init__.py": "",
        "mine/deep/blocks.py": "class Block: pass\n",
        "mine/unused.py": "",
        "my_helpers.py": "import torch\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    code = models.find("mine.network:build").code
    assert [str(path.relative_to(tmp_path)) for path in code] == sorted(set(files) - {"mine/unused.py"})
    before = code_hash(code)
    (tmp_path / "my_helpers.py").write_text("import torch  # edited\n")
    assert code_hash(models.find("mine.network:build").code) != before


@pytest.mark.parametrize("text", ["def build(:", "raise OSError('no licence')", "import absent_package"])
def test_a_module_that_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "raising.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"can't import 'raising' .*(SyntaxError|no licence|absent_package)"):
        models.find("raising:build")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments: None)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["resnet50-in21k", "resnet101-in21k", "densenet121-in1k"])
def test_missing_weights_are_an_error_at_once(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(models.WeightsMissing, match=r"fetch https://huggingface.co/timm/.*safetensors.*model.weights=") as error:
        built(name)
    assert time.monotonic() - start < 5
    assert "no network" in str(error.value)


@pytest.mark.usefixtures("offline")
def test_weights_from_a_local_file_or_folder(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    original = timm.create_model("densenet121").eval()
    file = tmp_path / "densenet121.tv_in1k.safetensors"
    save_file(original.state_dict(), file)
    network = built("densenet121-in1k", weights=str(file)).eval()
    assert parameters(network) == models.find("densenet121-in1k").parameters
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = original.forward_features((images - mean) / std)
    torch.testing.assert_close(network.network.forward_features((images - network.mean) / network.std), expected)
    grey = built("densenet121-in1k", 1, weights=str(tmp_path)).eval()
    stem = original.features.conv0.weight.sum(1, keepdim=True)
    torch.testing.assert_close(grey.network.features.conv0.weight, stem)
    for wrong in (tmp_path / "absent.safetensors", Path(__file__).parent):
        with pytest.raises(models.WeightsMissing, match="fetch https"):
            built("densenet121-in1k", weights=str(wrong))


def test_a_frozen_network_trains_its_last_layer_only(tmp_path: Path) -> None:
    """Not even the statistics of its batch norms change."""
    timm = pytest.importorskip("timm")
    source = timm.create_model("densenet121.tv_in1k", pretrained=False)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "densenet121.tv_in1k.safetensors")
    network = models.find("densenet121-in1k").build(1, 4, weights=str(tmp_path), freeze=True)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"network.classifier.weight", "network.classifier.bias"}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    network(torch.rand(2, 1, 64, 64)).sum().backward()
    optimizer.step()
    assert {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])} == trained
    told = weights_of("densenet121-in1k", {"weights": str(tmp_path)})
    assert told is not None
    assert (told.name, told.revision) == ("densenet121.tv_in1k.safetensors", "")
    assert told.sha256 == hashlib.sha256((tmp_path / told.name).read_bytes()).hexdigest()
    assert weights_of("cnn", {}) is None


@pytest.mark.parametrize("zero, expected", [(True, 0.0), (False, 1.0)])
def test_the_last_norm_of_a_block_starts_as_asked(zero: bool, expected: float) -> None:
    pytest.importorskip("timm")
    network = built("resnet50", 1, 4, zero_init_last=zero)
    assert (network.layer1[0].bn3.weight == expected).all()
