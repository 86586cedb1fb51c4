"""What is known of a model before its weights are there: sizes of its checkpoints, shapes, and costs of pictures."""

import shutil
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.bounded_tokenizer import check_tokenizer
from quantrust.models.companions import COMPANIONS
from quantrust.models.family import Family
from quantrust.models.pictures import PictureCost, picture_cost
from quantrust.models.processing import CHAT_TEMPLATE, override_processor
from quantrust.models.skeleton import build_skeleton
from quantrust.models.trial import try_processor
from quantrust.planning.published import published_models
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.external import open_external
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.scheme import Scheme
from quantrust.study.contents import MODEL_IN_PATH, base_name

CONFIG = "config.json"


class PlannedModel:
    """A model of a study, known from the files of its folder that are not weights, or from facts that are shipped.

    Sizes follow from its `config.json` alone; what a picture costs, and with it memory, needs the files of its
    processor as well. Where there is no `config.json` and the model is a download that `quantrust.planning.published`
    has, its facts are taken.

    Parameters
    ----------
    name : str
    config : mapping
        The study's, checked.

    Raises
    ------
    QuantrustError
        If the model's folder has no `config.json` and no facts are shipped, or it has one that cannot be read.
    """

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        base = base_name(config, name)
        self.name, self.section = name, config["models"][base]
        self.source = Path(self.section["source"])
        hub = _hub(self.section, self.source, config)
        facts = None if hub is None else published_models().get(hub["repository"])
        if (self.source / CONFIG).is_file():
            self.files = self.source
            self.companions = sum(
                (self.source / file).stat().st_size for file in COMPANIONS if (self.source / file).is_file()
            )
        elif facts is not None:
            # gone with this object
            self._scratch = tempfile.TemporaryDirectory()
            self.files = Path(self._scratch.name)
            facts.write_files(self.files)
            self.companions = facts.companions
        else:
            raise QuantrustError(
                f"models.{base}: {self.source / CONFIG} does not exist, so that {name} cannot be planned; put the "
                f"files of the model's folder that are not weights there{_command(hub, self.source)}"
            )
        self._layer_plans: dict[str, tuple[pl.DataFrame, dict[str, int | float | None]]] = {}
        self._costs: dict[tuple[int, str], PictureCost] = {}

    @cached_property
    def family_and_model(self) -> tuple[Family, nn.Module]:
        """The model on the meta device, unquantized: to be read, not to be changed."""
        with torch.device("meta"):
            return build_skeleton(self.files)

    @property
    def hidden(self) -> int:
        """Channels of the language model; 0 where there is none."""
        family, model = self.family_and_model
        if family.head is None:
            return 0
        return int(model.get_submodule(family.head).in_features)

    @property
    def vocabulary(self) -> int:
        """Tokens of the vocabulary of the language model; 0 where there is none."""
        family, model = self.family_and_model
        if family.head is None:
            return 0
        return int(model.get_submodule(family.head).out_features)

    def checkpoint(self, scheme: Scheme) -> tuple[pl.DataFrame, dict[str, int | float | None]]:
        """Return the layer plan of a checkpoint and its `bytes`; `weights_file` is exact.

        Raises
        ------
        QuantrustError
            If the scheme selects nothing of the model, or is a folder that cannot be read.
        """
        if scheme.name not in self._layer_plans:
            family, model = self.family_and_model
            if scheme.external is None:
                plan = build_layer_plan(family, model, scheme)
            else:
                plan = self._external_plan(scheme.name, scheme.external)
            self._layer_plans[scheme.name] = plan, planned_bytes(family, model, plan)
        return self._layer_plans[scheme.name]

    def _external_plan(self, scheme: str, path: str) -> pl.DataFrame:
        """Return the layer plan of a checkpoint that others quantized, from the headers of its files."""
        family, model = self.family_and_model
        folder = Path(path.replace(MODEL_IN_PATH, self.name))
        if not folder.is_dir():
            raise QuantrustError(f"{folder} does not exist, but schemes.{scheme}.external of the config names it")
        return open_external(folder, self.files, family, model).plan

    def picture(self, side: int, prompt: str) -> PictureCost:
        """Return what a square picture and its prompt cost.

        Parameters
        ----------
        side : int
            Pixels.
        prompt : str
            The user's text around ``{question}``.

        Raises
        ------
        QuantrustError
            If the folder lacks a part of the processor, or the parts do not fit together.
        """
        if (side, prompt) not in self._costs:
            family, model = self.family_and_model
            self._costs[side, prompt] = picture_cost(family, model, self._processor, prompt, side, side)
        return self._costs[side, prompt]

    @cached_property
    def _processor(self) -> Any:
        """The processor that the study uses: the folder's, with the config's settings and chat template."""
        with tempfile.TemporaryDirectory() as scratch:
            for file in COMPANIONS:
                if (path := self.files / file).is_file():
                    shutil.copyfile(path, Path(scratch) / file)
            try:
                if settings := self.section.get("processor"):
                    override_processor(scratch, settings)
                if (template := self.section.get("chat_template")) is not None:
                    shutil.copyfile(template, Path(scratch) / CHAT_TEMPLATE)
                family, model = self.family_and_model
                check_tokenizer(scratch)
                processor = family.load_processor(scratch)
                try_processor(scratch, family, model, processor)
                return processor
            except FileNotFoundError as error:
                raise QuantrustError(f"{error.filename} does not exist; correct the path in the config") from None
            except QuantrustError as error:
                raise QuantrustError(str(error).replace(scratch, str(self.source))) from None


def _hub(section: Mapping[str, Any], source: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what of the hub is downloaded to a model's folder, where the config says it."""
    for name in section.get("downloads", []):
        download = config["downloads"][name]
        if "hub" in download and Path(download["folder"]) == source:
            return download["hub"]
    return None


def _command(hub: Mapping[str, Any] | None, source: Path) -> str:
    """Return how to get a model's files, where the config says where they come from."""
    if hub is None:
        return ""
    return (
        f": hf download {hub['repository']} --revision {hub['revision']} --exclude '*.safetensors' --local-dir {source}"
    )
