"""A bundle from somebody else, sealed as it should be: what does not end is refused when it is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quantrust.artifacts.folder_record import RECORD as SEAL
from quantrust.artifacts.folder_record import write_record
from quantrust.bundle.load import Bundle
from quantrust.bundle.record import files_of
from quantrust.errors import QuantrustError
from quantrust.models import bounded, bounded_tokenizer

Change = Callable[[Path], None]


def rewritten(folder: Path, name: str, change: Callable[[dict], object]) -> None:
    """Change a JSON file of a bundle."""
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def sealed(folder: Path) -> None:
    """Write the record and the seals of a bundle anew, as anybody can."""
    write_record(folder / "checkpoint")
    rewritten(folder, "bundle.json", lambda content: content.update(files=files_of(folder)))
    (folder / SEAL).unlink()
    write_record(folder)


def without_an_end(content: dict) -> None:
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "((a|aa)+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }


HOSTILE: dict[str, tuple[Change, str]] = {
    "tokenizer": (
        lambda folder: rewritten(folder, "checkpoint/tokenizer.json", without_an_end),
        "the tokenizer does not read short texts within 1 seconds",
    ),
    "template": (
        lambda folder: (folder / "checkpoint" / "chat_template.jinja").write_text(
            "{% for a in range(9**5) %}" * 9 + "{% endfor %}" * 9
        ),
        "does not end within 1 seconds",
    ),
    "pictures": (
        lambda folder: rewritten(
            folder,
            "checkpoint/preprocessor_config.json",
            lambda content: content.update(min_pixels=10**7, max_pixels=10**7),
        ),
        "the image processor",
    ),
    "answers": (
        lambda folder: rewritten(
            folder, "bundle.json", lambda content: content["settings"].update(max_new_tokens=10**9)
        ),
        "max_new_tokens is 1,000,000,000; expected a number from 1 to 100,000",
    ),
}


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bounded, "SECONDS", 1)
    monkeypatch.setattr("quantrust.models.trial.SECONDS", 1)
    monkeypatch.setattr(bounded_tokenizer, "SECONDS", 1)
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_does_not_end_is_refused_when_a_bundle_is_loaded(folder: Path, change: Change, message: str) -> None:
    change(folder)
    sealed(folder)
    with pytest.raises(QuantrustError) as caught:
        Bundle.load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bundle_that_is_only_sealed_anew_is_loaded(folder: Path) -> None:
    """Without which the tests above would say nothing."""
    sealed(folder)
    assert Bundle.load(folder).record.estimator == "maxprob"


LAYERS: dict[str, tuple[Callable[[list], object], str]] = {
    "no object": (lambda layers: layers.append([]), "is []; expected an object with layer, rows,"),
    "no such layer": (lambda layers: layers[5].update(layer="model.visual"), "no layer of the model that can be"),
    "a layer twice": (lambda layers: layers.append(layers[5]), "or is there twice"),
    "other rows": (lambda layers: layers[5].update(rows=10**9), "expected rows, columns, bits and group of a layer of"),
    "a group of no size": (lambda layers: layers[5].update(group=0), "in groups of 0, which do not fit"),
    "a group that is none": (lambda layers: layers[5].update(group=None), "expected rows, columns, bits and group"),
    "bits": (lambda layers: layers[5].update(bits=7), "has 7 bits in groups of 64"),
    "foreign codes": (lambda layers: layers[5].update(shares=layers[6]["layer"]), "to which it is not tied"),
}


@pytest.mark.parametrize(("change", "message"), LAYERS.values(), ids=LAYERS)
def test_layers_that_the_model_does_not_have_are_refused(
    folder: Path, change: Callable[[list], object], message: str
) -> None:
    rewritten(folder, "checkpoint/quantization.json", lambda content: change(content["layers"]))
    sealed(folder)
    with pytest.raises(QuantrustError, match=r"quantization\.json: layers\[") as caught:
        Bundle.load(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["sha256", "layers"])
def test_a_record_of_quantization_without_what_loading_needs_is_refused(folder: Path, key: str) -> None:
    rewritten(folder, "checkpoint/quantization.json", lambda content: content.update({key: 7}))
    sealed(folder)
    with pytest.raises(QuantrustError, match=rf"quantization\.json: .*{key}"):
        Bundle.load(folder)
