"""Loading a model folder: the right family, strictly every weight, and its processor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from quantrust.artifacts.folder_record import RECORD, check_folder
from quantrust.errors import QuantrustError
from quantrust.files import read_object
from quantrust.models.companions import WEIGHT_SUFFIX
from quantrust.models.family import Family
from quantrust.models.model_config import build_model
from quantrust.models.processor_settings import family_name, unsupported
from quantrust.models.weights import stored_tensors
from quantrust.named_modules import FAMILIES, load_module


def load_family(name: str) -> Family:
    """Return the adapter of a family.

    Raises
    ------
    QuantrustError
        If there is none.
    """
    if (fault := unsupported(name)) is not None:
        raise QuantrustError(fault)
    return load_module(FAMILIES, name, ("FAMILY",)).FAMILY


def family_name_of(folder: str | Path) -> object:
    """Return the name of the family that a model folder's `config.json` describes, whether it has an adapter or not.

    Raises
    ------
    QuantrustError
        If there is no config, or it is damaged; of a folder that a study wrote, if any file but weights is.
    """
    path = Path(folder) / "config.json"
    # The library reads some of the files itself. Weights are looked at where they are opened.
    if (Path(folder) / RECORD).is_file():
        check_folder(folder, lambda name: not name.endswith(WEIGHT_SUFFIX))
    if not path.is_file():
        raise QuantrustError(f"{path} is missing: expected a model folder in the Hugging Face layout")
    return family_name(read_object(path))


def family_of(folder: str | Path) -> Family:
    """Return the adapter of the architecture that `config.json` names.

    Raises
    ------
    QuantrustError
        If there is no config, or no adapter for what it describes.
    """
    name = family_name_of(folder)
    try:
        return load_family(name)
    except QuantrustError as error:
        raise QuantrustError(f"{Path(folder) / 'config.json'}: {error}") from None


@contextmanager
def quiet_library() -> Iterator[None]:
    """Keep the model library from reporting on every load: what matters in its reports is checked and raised."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_model(folder: str | Path, dtype: torch.dtype = torch.float32) -> tuple[Family, nn.Module, Any]:
    """Load an unquantized model folder.

    Parameters
    ----------
    folder : str or Path
    dtype : torch.dtype
        The dtype that the model computes in.

    Returns
    -------
    family : Family
    model : torch.nn.Module
        In evaluation mode, on the CPU.
    processor : object

    Raises
    ------
    QuantrustError
        As `stored_tensors` does: nothing is ever re-initialised. Or if the config or a part of the processor is missing
        or damaged.
    """
    family = family_of(folder)
    with torch.device("meta"):
        described = build_model(folder, family)
    stored_tensors(folder, described)
    with quiet_library():
        model = family.model_class.from_pretrained(folder, config=described.config, dtype=dtype)
    return family, model.eval(), family.load_processor(str(folder))
