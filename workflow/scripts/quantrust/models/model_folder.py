"""Model folders as a study uses them: the files of a model, checked, with the config's processor and template."""

import codecs
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from quantrust.artifacts.folders import artifact_folder
from quantrust.errors import QuantrustError
from quantrust.files import path_inside, read_object, sha256
from quantrust.models.bounded_tokenizer import check_tokenizer
from quantrust.models.companions import COMPANIONS, INDEX
from quantrust.models.loading import family_name_of
from quantrust.models.model_config import CONFIG, run_settings
from quantrust.models.processing import CHAT_TEMPLATE, override_processor
from quantrust.models.processor_settings import unknown_settings
from quantrust.models.skeleton import build_skeleton
from quantrust.models.trial import try_model
from quantrust.models.weights import check_finite, other_weights, stored_tensors, weight_files

TEXT_SUFFIXES = (".json", ".jinja", ".txt")

_log = logging.getLogger(__name__)


def prepare_model(
    source: str | Path,
    out_dir: str | Path,
    family: str,
    *,
    processor: Mapping[str, Any] | None = None,
    chat_template: str | Path | None = None,
) -> None:
    """Make a model folder that every later stage reads, and check it.

    Parameters
    ----------
    source : str or Path
        In the Hugging Face layout. With a `training.json` the files that it lists are copied and checked against their
        digests. Of any other folder the files that a model is made of are taken: weights as hard links where the file
        system allows, so that gigabytes do not lie on the disk twice, else as copies.
    out_dir : str or Path
    family : str
        What the model's `config.json` must describe.
    processor : mapping, optional
        Settings that take the place of those in the folder's `preprocessor_config.json`.
    chat_template : str or Path, optional
        A file that takes the place of the folder's chat template.

    Raises
    ------
    QuantrustError
        If a listed file is missing, has another digest or lies outside the folder, the model is of another family, a
        shard or a key of the weights is missing, unexpected or of another shape, weights are quantized already or not
        finite, the family's processor does not have a setting, the folder lacks a part of its processor or holds a
        damaged one, its tokenizer does not end soon, or the model cannot read a prompt about a picture.
    """
    source = Path(source)
    with artifact_folder(out_dir) as folder:
        if (record := source / "training.json").is_file():
            _copy_listed(source, record, folder)
        else:
            _take_published(source, folder)
        with _named_as(source, folder):
            for path in sorted(folder.iterdir()):
                if path.suffix in TEXT_SUFFIXES:
                    _check_text(path)
                if path.suffix == ".json":
                    read_object(path)
        found = family_name_of(source)
        if found != family:
            raise QuantrustError(
                f"{source}: config.json describes a {found!r} model, but the config says that the model's family is "
                f"{family!r}; correct models.<name>.family"
            )
        for fault in unknown_settings(family, processor or {}):
            raise QuantrustError(f"models.<name>.processor: {fault}")
        if processor:
            override_processor(folder, processor)
        if chat_template is not None:
            shutil.copyfile(chat_template, folder / CHAT_TEMPLATE)
        # on the meta device: only names and shapes are compared
        with _named_as(source, folder), torch.device("meta"):
            adapter, model = build_skeleton(folder)
        with _named_as(source, folder):
            check_finite(stored_tensors(folder, model))
            if ignored := run_settings(read_object(folder / CONFIG)):
                _log.info("%s: not read, because the study decides: %s", source / CONFIG, ", ".join(ignored))
            check_tokenizer(folder)
            try_model(str(folder), adapter.load_processor(str(folder)))


def _check_text(path: Path) -> None:
    """Raise when a file is not UTF-8 text, or begins with a mark that the library takes for a part of it."""
    content = path.read_bytes()
    if content.startswith(codecs.BOM_UTF8):
        raise QuantrustError(f"{path}: begins with a byte order mark, which the library does not read; save it without")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise QuantrustError(f"{path}: is not UTF-8 text at byte {error.start}; get the file again") from None


@contextmanager
def _named_as(source: Path, folder: Path) -> Iterator[None]:
    """Name the source folder in errors, because the prepared folder is gone when they are read."""
    try:
        yield
    except QuantrustError as error:
        raise QuantrustError(str(error).replace(str(folder), str(source))) from None


def _copy_listed(source: Path, record: Path, folder: Path) -> None:
    listed = read_object(record).get("files")
    if not isinstance(listed, dict):
        raise QuantrustError(f'{record}: expected "files", an object with the digest of every file of the model')
    for name, digest in sorted(listed.items()):
        path, target = path_inside(source, name, record, links_out=True), path_inside(folder, name, record)
        if not path.is_file():
            raise QuantrustError(f"{path} is missing, though {record} lists it; restore it from the repository")
        if sha256(path) != digest:
            raise QuantrustError(f"{path} differs from the digest in {record}; restore it from the repository")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _take_published(source: Path, folder: Path) -> None:
    named = weight_files(source)
    if others := other_weights(source, named):
        _log.info("%s: not read, because the weights lie in other files: %s", source, ", ".join(others))
    files = dict.fromkeys(named.values())
    for name in COMPANIONS:
        if (path := source / name).is_file():
            shutil.copyfile(path, folder / name)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, folder / INDEX)
    for path in files:
        _link(path, folder / path.name)


def _link(path: Path, target: Path) -> None:
    """Make a hard link, or a copy where that is impossible: on another file system, or on one without links."""
    try:
        # what a link of the hub's cache points to, not the link itself
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
