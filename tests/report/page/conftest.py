"""A small study whose tables the evaluation itself computes from made-up answers, and the page built from it."""

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from quantrust.artifacts.row_groups import writing_row_groups
from quantrust.artifacts.tables import read_table, write_csv, write_table
from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.comparison import ComparisonSettings, write_comparisons
from quantrust.evaluation.decisions import DecisionSettings, decide_variant
from quantrust.evaluation.examples import ExampleSettings, write_examples
from quantrust.evaluation.fairness import FairnessSettings, write_fairness
from quantrust.evaluation.limits import risk_limits
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.operating_points import Conditions, OperatingPoints
from quantrust.evaluation.shipped_points import PointSettings, shipped_points
from quantrust.evaluation.shipping import ShippingSettings, write_shipping
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from quantrust.files import write_json
from quantrust.report.page.build import Sources, write_page
from quantrust.report.tables import as_is, data, published, sizes
from resampled import resampled
from settings_given import given

ROOT = Path(__file__).resolve().parents[3]
ID_DATASET, SHIFT = "scenes", "scenes-language"
MODELS = ("model-a", "model-b")
# The last is the name of a table in the config, which has no one number of bits.
SCHEMES = ("bf16", "hqq-w4g64-full", "mbq-w2g64-full", "mixed")
ESTIMATORS = ["maxprob", "selector"]
# Text that would end a script or start a tag, were it not escaped; a question may hold anything.
FIGURES = {"risk_coverage": "Risk at a share of 0.05\nof <all>. Colours are schemes.", "mixtures": "What shifts do."}
JUDGED = ("estimators", "risks", "keeps")
REFERENCE = ROOT / "config" / "paper_reference.yaml"
# In distribution (value, low, high), of variants that the paper prints: it has 82.5, 3.7 and 41.1 of the first, and no
# accuracy of the Selector, whose answers are MaxProb's.
BESIDE_THE_PAPER = {
    ("qwen2-vl-7b", "mbq-w4g128", "maxprob"): [(0.835, 0.831, 0.84), (0.0368, 0.02, 0.045), (0.35, 0.3, 0.425)],
    ("qwen2-vl-7b", "mbq-w4g128", "selector"): [(0.835, 0.831, 0.84), (0.0224, 0.02, 0.03), (None, None, None)],
    ("idefics3-8b", "mbq-w4g128", "maxprob"): [(0.77, 0.76, 0.78), (0.05, 0.04, 0.06), (0.2, 0.15, 0.25)],
}
GROUP = "$<b>kind</b>$"
HOSTILE = "is 3 < 5?</script><b>&amp; \u2028"


@dataclass
class PageStudy:
    """Files of the study, the config that the page is given, and the page itself."""

    folder: Path
    sources: Sources
    config: dict
    page: Path
    figures: dict[str, str]


def study_config() -> dict:
    """Return the shipped config, cut to the size of this study."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["study"] |= {
        "models": list(MODELS),
        "schemes": list(SCHEMES),
        "id_dataset": ID_DATASET,
        "shifts": [SHIFT],
        "estimators": ESTIMATORS,
    }
    config["evaluation"] |= {"risks": [0.05, 0.1], "costs": [10], "resamples": 40, "id_shares": [1, 0.5, 0]}
    config["evaluation"] |= {"groups": ["answer_type", "question_kind"]}
    config["certification"] |= {"estimators": ESTIMATORS, "risks": [0.1], "splits": 20}
    config["bundles"] |= {"schemes": list(SCHEMES), "estimators": ESTIMATORS, "risks": [0.2, 0.1, 0.05]}
    config["comparison"] |= {"estimators": ESTIMATORS, "resamples": 99}
    config["report"] |= {"limits": {"lowest": 0.05, "highest": 0.2, "step": 0.05}, "examples": 2}
    config["report"]["shipping"] = {
        "estimators": ["selector", "maxprob"],
        "risk": 0.1,
        "risks": [0.05, 0.1, 0.2],
        "keeps": 0.95,
    }
    return config


def answers(model: str, scheme: str) -> pl.DataFrame:
    """Made-up scores: fewer bits, more wrong answers; the shift is harder; confidence tells right from wrong."""
    loss = {"bf16": 0.0, "hqq-w4g64-full": 0.0, "mixed": 0.02, "mbq-w2g64-full": 0.3}[scheme] + 0.05 * (
        model == "model-b"
    )
    parts = []
    for number, (dataset, split, n, hardness) in enumerate(
        [(ID_DATASET, "val", 600, 0.1), (ID_DATASET, "test", 900, 0.1), (SHIFT, "test", 300, 0.4)]
    ):
        ease = np.random.default_rng(number).random(n)
        quality = np.where(ease > hardness + loss, 1.0, np.where(ease > 0.5 * (hardness + loss), 0.3, 0.0))
        noise = np.random.default_rng([number, 7, len(scheme)]).random(n)
        parts.append(
            pl.DataFrame(
                {
                    "dataset": dataset,
                    "split": split,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{index // 2}" for index in range(n)],
                    "quality": quality,
                    "answer_type": np.where(ease < 0.25, "number", "yes/no"),
                    "question_kind": [GROUP if index < 6 and dataset == ID_DATASET else None for index in range(n)],
                    "maxprob": np.clip(0.6 * ease + 0.4 * noise, 0, 1),
                    "selector": np.clip(0.7 * ease + 0.3 * noise, 0, 1),
                }
            )
        )
    return pl.concat(parts)


def write_questions(scores: pl.DataFrame, dataset: str, folder: Path) -> Path:
    """Write the questions table of a dataset, and a picture that all of its questions are about."""
    picture = folder / f"{dataset}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    side = 64 if dataset == ID_DATASET else 900
    Image.new("RGB", (side, side), "orange" if dataset == ID_DATASET else "purple").save(picture)
    here = scores.filter(pl.col("dataset") == dataset)
    texts = [HOSTILE if index % 2 else "what is there?" for index in range(here.height)]
    path = folder / f"{dataset}.parquet"
    table = here.select(
        "question_id",
        "dataset",
        "split",
        "image_id",
        pl.lit(str(picture)).alias("image"),
        pl.Series("question", texts),
        pl.Series("answers", [["orange"] * 8 + ["red"] * 2] * here.height),
    )
    write_table(table, path)
    return path


def write_checkpoint(folder: Path, scheme: str) -> Path:
    """Write what the page reads of a checkpoint."""
    bits = {"bf16": None, "hqq-w4g64-full": 4, "mixed": 3, "mbq-w2g64-full": 2}[scheme]
    size = 2_000_000 if bits is None else 125_000 * bits + 60_000
    layers = [
        {"component": "vision", "layer_type": None, "rows": 128, "columns": 384, "reason": "convolution"},
        {"component": "language", "layer_type": "mlp", "rows": 64, "columns": 64, "reason": None},
        {"component": "language", "layer_type": "mlp", "rows": 64, "columns": 64, "reason": None},
    ]
    for layer in layers:
        quantized = layer["reason"] is None and bits is not None
        layer |= {"bits": bits if quantized else None, "group": 64 if quantized else None}
        layer["relative_error"] = 0.1 * (5 - bits) if quantized else None
    record = {
        "scheme": scheme,
        "sha256": "0" * 64,
        "bytes": {
            "weights_file": size,
            "quantized": 0 if bits is None else 125_000 * bits,
            "unquantized": 60_000,
            "bfloat16": 2_000_000,
            "resident": size + 100,
            "resident_packed": size + 200,
            "resident_bfloat16": 2_000_100,
            "quantized_bits_per_weight": None if bits is None else bits + 0.5,
            "model_bits_per_weight": 16.0 if bits is None else bits + 1.25,
        },
        "calibration": {"samples": 128} if scheme.startswith("mbq") else None,
        "layers": layers,
    }
    folder.mkdir(parents=True)
    write_json(folder / "quantization.json", record)
    return folder


def write_published(folder: Path) -> Path:
    """Write a table beside the paper's numbers, of variants under the paper's names."""
    keys = [("accuracy", None), ("ece", None), ("coverage_at_risk", 0.01)]
    rows = [
        (*variant, "vqav2", 1.0, *key, *figures, 107_177)
        for variant, metrics in BESIDE_THE_PAPER.items()
        for key, figures in zip(keys, metrics, strict=True)
    ]
    columns = [
        "model",
        "scheme",
        "estimator",
        "dataset",
        "id_share",
        "metric",
        "parameter",
        "value",
        "low",
        "high",
        "n",
    ]
    metrics = folder / "metrics.parquet"
    write_table(pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None), metrics)
    csv, *others = (folder / f"published.{kind}" for kind in ("csv", "md", "tex"))
    settings = published.Settings("vqav2", 0.95)
    published.write(csv, *others, settings, metric_paths=[metrics], published_path=REFERENCE)
    return csv


def write_study(folder: Path) -> PageStudy:
    """Write the tables of the study and build its page."""
    config = study_config()
    variants = list(itertools.product(MODELS, SCHEMES))
    kinds = ("scores", "metrics", "curves", "decisions")
    paths = {
        kind: {(model, scheme): folder / kind / model / f"{scheme}.parquet" for model, scheme in variants}
        for kind in kinds
    }
    mixtures = {SHIFT: folder / "mixtures.parquet"}
    common = {"id_dataset": ID_DATASET, "resamples": 40, "seed": 0}
    conditions = Conditions("cpu", "float32", "reference", "sdpa")
    features = {}
    for variant in variants:
        model, scheme = variant
        scores = answers(model, scheme)
        paths["scores"][variant].parent.mkdir(parents=True, exist_ok=True)
        write_table(scores, paths["scores"][variant])
        if not mixtures[SHIFT].exists():
            id_rows, shift = (scores.filter(pl.col("dataset") == name) for name in (ID_DATASET, SHIFT))
            write_table(mixture_table(id_rows, shift, config["evaluation"]["id_shares"], seed=0), mixtures[SHIFT])
        write_from_scores(
            evaluate_variant,
            paths["scores"][variant],
            mixtures,
            [paths["metrics"][variant], paths["curves"][variant]],
            **given(
                EvaluationSettings,
                model=model,
                scheme=scheme,
                estimators=ESTIMATORS,
                risks=config["evaluation"]["risks"],
                costs=config["evaluation"]["costs"],
                **common,
            ),
        )
        declared = PointSettings(
            schemes=len(SCHEMES),
            ships=True,
            **{key: config["bundles"][key] for key in ("estimators", "risks", "delta")},
            **common,
        )
        drawn = {dataset: read_table(path) for dataset, path in mixtures.items()}
        points = shipped_points(scores, drawn, model=model, scheme=scheme, settings=declared)
        write_from_scores(
            decide_variant,
            paths["scores"][variant],
            mixtures,
            [paths["decisions"][variant]],
            shipped=OperatingPoints(model, scheme, "", ID_DATASET, conditions, *points),
            **given(
                DecisionSettings,
                model=model,
                scheme=scheme,
                estimators=ESTIMATORS,
                risks=risk_limits(**config["report"]["limits"]),
                delta=0.1,
                splits=config["certification"]["splits"],
                **common,
            ),
        )
        for dataset in (ID_DATASET, SHIFT):
            features[*variant, dataset] = folder / "features" / model / f"{scheme}-{dataset}.parquet"
            features[*variant, dataset].parent.mkdir(parents=True, exist_ok=True)
            table = scores.filter(pl.col("dataset") == dataset).select("question_id", "split", answer=pl.lit("orange"))
            rows = table.to_arrow()
            with writing_row_groups(features[*variant, dataset], rows.schema, ["answer"]) as writer:
                writer.write(rows)
                writer.describe({"torch": "2.0", "transformers": "5.0"})
    shipping = config["report"]["shipping"]
    judged = ShippingSettings(reference="bf16", **{name: shipping[name] for name in JUDGED})
    coverages = [("coverage_at_risk", risk) for risk in judged.risks]
    asked = {"estimators": judged.estimators, "metrics": [("accuracy", None), *coverages]}
    write_shipping(
        resampled(paths["scores"], mixtures, folder / "judged", **asked, **common),
        folder / "shipping.parquet",
        judged,
    )
    write_fairness(
        paths["scores"],
        mixtures,
        {},
        folder / "fairness.parquet",
        **given(
            FairnessSettings,
            reference="bf16",
            groupings=config["evaluation"]["groups"],
            estimators=shipping["estimators"],
            risk=shipping["risk"],
            **common | {"resamples": 2999},
        ),
    )
    pairs = [((*variant, "selector"), (*variant, "maxprob")) for variant in variants]
    asked = {"estimators": ["selector", "maxprob"], "metrics": [("aurc", None)]}
    write_comparisons(
        resampled(paths["scores"], mixtures, folder / "compared", **asked, **common | {"resamples": 99}),
        folder / "comparisons.parquet",
        ComparisonSettings(pairs, asked["metrics"]),
    )
    questions = {
        name: write_questions(answers(*variants[0]), name, folder / "questions") for name in (ID_DATASET, SHIFT)
    }
    write_examples(
        questions,
        paths["scores"],
        features,
        paths["decisions"],
        folder / "examples.parquet",
        **given(
            ExampleSettings,
            id_dataset=ID_DATASET,
            estimator=shipping["estimators"][0],
            risk=shipping["risk"],
            each=2,
            seed=0,
        ),
    )
    checkpoints = {
        (model, scheme): write_checkpoint(folder / "checkpoints" / model / scheme, scheme) for model, scheme in variants
    }
    reports = folder / "reports"
    reports.mkdir()
    figures = {name: reports / f"{name}.png" for name in FIGURES}
    for path in figures.values():
        Image.effect_noise((140, 60), 90).save(path)
    sizes.write(reports / "tables" / "sizes.csv", checkpoints=checkpoints.values())
    tables = {name: reports / "tables" / f"{name}.csv" for name in ("decisions", "shipping", "fairness", "data")}
    as_is.write(tables["decisions"], paths=paths["decisions"].values())
    as_is.write(tables["shipping"], paths=[folder / "shipping.parquet"])
    as_is.write(tables["fairness"], paths=[folder / "fairness.parquet"])
    skipped = folder / "skipped.parquet"
    write_table(pl.read_parquet(questions[ID_DATASET]).clear(), skipped)
    data.write(tables["data"], data.Settings(ID_DATASET), question_paths=questions.values(), skipped_paths=[skipped])
    sources = Sources(
        metrics=paths["metrics"],
        curves=paths["curves"],
        scores=paths["scores"],
        checkpoints=checkpoints,
        features=features,
        questions=questions,
        sizes=reports / "tables" / "sizes.csv",
        comparisons=folder / "comparisons.parquet",
        examples=folder / "examples.parquet",
        published=write_published(folder),
        reference=REFERENCE,
        figures=figures,
        **tables,
    )
    write_page(sources, reports / "index.html", captions=FIGURES, config=config, workflow={"snakemake": "9.0"})
    return PageStudy(folder, sources, config, reports / "index.html", FIGURES)


@pytest.fixture(scope="session")
def page_study(tmp_path_factory: pytest.TempPathFactory) -> PageStudy:
    return write_study(tmp_path_factory.mktemp("page-study"))


@pytest.fixture(scope="session")
def page_without_shifts(page_study: PageStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the same study in distribution alone: of its tables the rows that are left."""
    sources, folder = page_study.sources, tmp_path_factory.mktemp("page-without-shifts")

    def of_id_dataset(path: str | Path, name: str) -> Path:
        path, kept = Path(path), folder / name
        if path.suffix == ".csv":
            write_csv(pl.read_csv(path, infer_schema_length=None).filter(dataset=ID_DATASET), kept)
        else:
            write_table(pl.read_parquet(path).filter(dataset=ID_DATASET), kept)
        return kept

    of_all = ("decisions", "shipping", "data", "comparisons", "examples")
    changes: dict = {name: of_id_dataset(getattr(sources, name), name) for name in of_all}
    for name in ("metrics", "curves"):
        paths = getattr(sources, name)
        changes[name] = {variant: of_id_dataset(path, "-".join((name, *variant))) for variant, path in paths.items()}
    changes["questions"] = {ID_DATASET: sources.questions[ID_DATASET]}
    config = {**page_study.config, "study": {**page_study.config["study"], "shifts": []}}
    given = {"captions": page_study.figures, "config": config, "workflow": {"snakemake": "9.0"}}
    write_page(replace(sources, **changes), folder / "index.html", **given)
    return folder / "index.html"


@pytest.fixture(scope="session")
def page_data(page_study: PageStudy) -> dict:
    """The values that the page carries."""
    text = page_study.page.read_text(encoding="utf-8")
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
