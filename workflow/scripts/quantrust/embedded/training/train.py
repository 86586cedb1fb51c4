"""The training of one embedded model, from its scenes to its folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from quantrust.artifacts.folders import artifact_folder
from quantrust.digest import source_digest
from quantrust.embedded.checkpoints import Checkpoints
from quantrust.embedded.models import SPECS, build_model, save_model_folder, train_tokenizer
from quantrust.embedded.training import language, matching, vision
from quantrust.embedded.training.settings import TrainingSettings
from quantrust.embedded.training.stage import Learner, Log, Run
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.files import sha256, write_json
from quantrust.models.family import Family
from quantrust.models.loading import load_family

CHECKPOINT_EVERY = 250
"""Steps between two checkpoints: a few minutes."""


def train_embedded_model(
    name: str, out_dir: str | Path, settings: TrainingSettings, checkpoint_every: int = CHECKPOINT_EVERY
) -> None:
    """Train an embedded model from scratch and write its folder.

    Parameters
    ----------
    name : str
        A key of `quantrust.embedded.models.SPECS`.
    out_dir : str or Path
        Gets the model folder with bfloat16 weights, `training.csv` (the curve) and `training.json` (sizes, settings,
        digest of the code, digests of the files). Until then the last checkpoint lies beside it, in
        `<out_dir>.checkpoint`. If a checkpoint of the same training is there, the training goes on from it.
    settings : TrainingSettings
    checkpoint_every : int
        Steps between two checkpoints. No byte of the model depends on it.
    """
    spec = SPECS[name]
    family = load_family(spec.family)
    purpose = matching.PURPOSE if family.matches else language.PURPOSE
    torch.use_deterministic_algorithms(True)
    record = {
        "model": name,
        "spec": asdict(spec),
        "settings": asdict(settings),
        "code": source_digest(__name__),
    }
    out_dir = Path(out_dir)
    checkpoints = Checkpoints(
        out_dir.with_name(f"{out_dir.name}.checkpoint"),
        record
        | {
            "family": source_digest(type(family).__module__),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        checkpoint_every,
        (vision.NAME, *purpose.stages(settings)),
    )
    run = Run(settings, Log(checkpoints.log), checkpoints)
    data = TrainingSet(settings)
    tokenizer = train_tokenizer(purpose.corpus(data, spec), spec.family)
    model = build_model(spec, tokenizer, settings.seed)
    with artifact_folder(out_dir) as folder:
        learner = Learner(family, spec, model, processor_for(family, model, tokenizer, folder))
        run.train(vision.vision_stage(learner, data, settings))
        checkpoints.restore("model", model)
        purpose.train(learner, data, run)
        save_model_folder(model, tokenizer, family.name, folder, torch.bfloat16)
        run.log.write(folder / "training.csv")
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        write_json(folder / "training.json", {**record, "files": files})
    checkpoints.remove()


def processor_for(family: Family, model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Any:
    """Return the processor of a model as the family loads it from the model's folder, which is written for it."""
    save_model_folder(model, tokenizer, family.name, folder, torch.float32)
    return family.load_processor(str(folder))
