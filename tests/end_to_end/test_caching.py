"""What reruns after a change: the stages that the change concerns and what follows from them, and nothing else."""

import json
from collections import Counter
from pathlib import Path

from quantrust.digest import SCRIPTS, code_files
from quantrust.report import contents

MODEL = "adversary"
VARIANTS, DATASETS = 3, 3
# What only a paper, a learning curve and grids of schemes have.
NO_PART = (
    "published",
    "learning_curve",
    *("grid", "importance", "interactions", "effects", "published_importance"),
    *("part_importance", "grid_heatmaps", "grid_interactions", "part_effects", "mixed_precision"),
)
ENTRIES = [entry for entry in contents.ENTRIES if entry.name not in NO_PART]


def shows(*folders: str) -> Counter:
    """Figures and tables that read what lies in these folders of results."""
    read = {entry.rule: " ".join(map(str, entry.inputs.values())) for entry in ENTRIES}
    return Counter(rule for rule, inputs in read.items() if any(f"/{folder}/" in inputs for folder in folders))


def drawn_with(module: str) -> Counter:
    """Figures whose modules import a module."""
    path = SCRIPTS.joinpath(*module.split(".")).with_suffix(".py")
    return Counter(
        figure.rule
        for figure in contents.FIGURES
        if figure.name not in NO_PART
        and path in code_files(SCRIPTS.joinpath(*figure.dotted_module.split(".")).with_suffix(".py"), SCRIPTS)
    )


# What follows from metrics; the main tables and the page also from comparisons, sizes and decisions.
REPORT = shows("metrics") + Counter(build_page=1)
GROUP_FIGURES = shows("groups", "bins")
EVALUATION = (
    Counter(
        evaluate_in_distribution=VARIANTS,
        break_down_in_distribution=VARIANTS,
        evaluate_variant=VARIANTS,
        break_down_variant=VARIANTS,
    )
    + REPORT
    + GROUP_FIGURES
)
CERTIFICATION = Counter(certify_variant=VARIANTS, tabulate_certification=1)
# All variants are compared with one another, so that any change of scores compares all anew.
SHARED = ("data/studies/reports/", "reports/")
DRIFT = Counter(measure_drift=1, tabulate_drift=1, drift_from_bf16=1)
COMPARISON = DRIFT + Counter(compare_variants=1, tabulate_comparisons=1, selector_gain=1)
# Each variant is resampled by itself, for the comparison and for the judgement of schemes.
RESAMPLED = Counter(resample_variant=VARIANTS)
FAIRNESS = Counter(judge_groups=1, tabulate_fairness=1, fairness_by_group=1)
DECISION_TABLES = FAIRNESS + Counter(judge_schemes=1, pick_examples=1, tabulate_decisions=1, tabulate_shipping=1)
DECISION = Counter(set_operating_points=VARIANTS, decide_variant=VARIANTS) + DECISION_TABLES
ONE_VARIANT = Counter(
    quantize_model=1,
    dump_features=DATASETS,
    train_selector=1,
    score_in_distribution=1,
    write_scores=1,
    evaluate_in_distribution=1,
    break_down_in_distribution=1,
    evaluate_variant=1,
    break_down_variant=1,
    resample_variant=1,
    certify_variant=1,
    set_operating_points=1,
    decide_variant=1,
)
# What is written anew for all variants when one changes.
FOR_ALL = REPORT + GROUP_FIGURES + COMPARISON + DECISION_TABLES + Counter(tabulate_sizes=1, tabulate_certification=1)
JUDGED = RESAMPLED + CERTIFICATION + COMPARISON + DECISION
SCORES = Counter(score_in_distribution=VARIANTS, write_scores=VARIANTS) + EVALUATION + JUDGED


def edit(workspace, module: str) -> None:
    """Append a comment to a module of the package."""
    path = workspace.folder / "workflow" / "scripts" / "quantrust" / module
    path.write_text(path.read_text() + "# edited\n")


def test_nothing_is_planned_in_a_copy_of_a_finished_study(scratch) -> None:
    assert scratch.plan() == (Counter(), set())


def test_editing_the_selector_reruns_selectors_and_what_follows(scratch) -> None:
    edit(scratch, "confidence/selector_training.py")
    assert scratch.plan()[0] == Counter(train_selector=VARIANTS) + SCORES


def test_another_seed_of_the_selector_reruns_selectors_and_what_follows(scratch) -> None:
    """Neither calibration nor mixtures nor resamples are drawn anew: those are the study's seed's."""
    scratch.change("selector", "seed", value=1)
    assert scratch.plan()[0] == Counter(train_selector=VARIANTS) + SCORES


def test_a_learning_curve_trains_on_parts_of_dev_and_changes_no_selector(scratch) -> None:
    scratch.change("selector", "learning_curve", value=[10, 48])
    jobs, _ = scratch.plan()
    trained = Counter(train_on_labels=2 * VARIANTS, score_on_labels=2 * VARIANTS, evaluate_learning=VARIANTS)
    assert jobs == trained + Counter(learning_curve=1, build_page=1)


def test_another_seed_of_the_study_retrains_selectors_only_where_it_changes_the_model(scratch) -> None:
    """Calibration is drawn anew, and with it the weights of the one scheme that reads it."""
    scratch.change("seed", value=1)
    jobs, written = scratch.plan()
    assert jobs["build_calibration"] == jobs["train_selector"] == 1
    assert f"data/selectors/{MODEL}/mbq-w3g32-full" in written
    assert jobs["build_mixtures"] == DATASETS - 1


def test_editing_an_estimator_reruns_scores_and_what_follows(scratch) -> None:
    edit(scratch, "confidence/estimators/margin.py")
    assert scratch.plan()[0] == SCORES


def test_adding_an_estimator_that_no_study_names_reruns_nothing(scratch) -> None:
    added = scratch.folder / "workflow" / "scripts" / "quantrust" / "confidence" / "estimators" / "first_token.py"
    added.write_text((added.parent / "maxprob.py").read_text())
    assert scratch.plan() == (Counter(), set())
    scratch.change("study", "estimators", value=["maxprob", "selector", "first-token"])
    assert scratch.plan()[0] == SCORES


def test_editing_the_bootstrap_reruns_evaluations_and_what_follows(scratch) -> None:
    edit(scratch, "evaluation/resampling.py")
    assert scratch.plan()[0] == EVALUATION + JUDGED


def test_another_estimator_of_bundles_writes_the_bundle_alone(scratch) -> None:
    bundle = f"data/bundles/{MODEL}/hqq-w3g32-full"
    for estimator in ("maxprob", "selector"):
        scratch.change("bundles", "estimator", value=estimator)
        assert scratch.plan(bundle) == (Counter(bundle_variant=1), {bundle})
    assert scratch.plan() == (Counter(), set())


def test_editing_what_bundles_are_written_and_asked_with_reruns_nothing_of_the_study(scratch) -> None:
    for module in ("bundle/write.py", "bundle/card.py", "bundle/load.py"):
        edit(scratch, module)
    assert scratch.plan() == (Counter(), set())


def test_editing_the_figures_redraws_them(scratch) -> None:
    edit(scratch, "report/figures/degradation.py")
    # The page shows every figure.
    assert scratch.plan()[0] == Counter(degradation=1, build_page=1)
    edit(scratch, "report/figures/parts.py")
    drawn = drawn_with("quantrust.report.figures.parts")
    assert {"risk_coverage", "degradation", "selector_gain", "question_kinds"} <= set(drawn)
    assert scratch.plan()[0] == drawn + Counter(build_page=1)


def test_editing_the_page_builds_it_alone(scratch) -> None:
    edit(scratch, "report/page/words.py")
    assert scratch.plan()[0] == Counter(build_page=1)


def test_changing_what_may_ship_judges_anew_and_computes_nothing_else(scratch) -> None:
    scratch.change("report", "shipping", "keeps", value=0.9)
    assert scratch.plan()[0] == Counter(judge_schemes=1, tabulate_shipping=1, build_page=1)


def test_starting_the_page_with_another_limit_judges_nothing_anew(scratch) -> None:
    scratch.change("report", "shipping", "risk", value=0.1)
    # Whether groups are treated alike is asked of the one threshold that the limit gives.
    assert scratch.plan()[0] == FAIRNESS + Counter(pick_examples=1, build_page=1)


def test_bringing_groups_of_questions_asks_no_model_anew(scratch) -> None:
    path = scratch.folder / "topics.csv"
    path.write_text("image_id,topic,region\n" + "".join(f"{number},{number % 3},x\n" for number in range(10_000)))
    scratch.change("datasets", "scenes", "groups", value="topics.csv")
    assert scratch.plan()[0] == Counter(build_page=1)
    scratch.change("evaluation", "groups", value=["answer_type", "topic"])
    jobs, written = scratch.plan()
    assert jobs == FAIRNESS + Counter(build_question_groups=1, build_page=1)
    assert "data/question_groups/scenes.parquet" in written


def test_another_study_of_fewer_schemes_leaves_what_the_first_computed_of_all_of_them(scratch) -> None:
    shared = ("comparisons", "shipping", "examples", "fairness", "drift")
    before = scratch.digests("data/studies/reports")
    resampled = "data/studies/reports/resampled/"
    assert {Path(path).stem for path in before if not path.startswith(resampled)} == set(shared)
    scratch.change("study", "schemes", value=["bf16", "hqq-w3g32-full"])
    scratch.change("report", "folder", value="reports/other")
    jobs, written = scratch.plan()
    # Fewer schemes share delta, so that every certificate is sought anew.
    certified = Counter(set_operating_points=2, decide_variant=2)
    assert jobs <= FOR_ALL + Counter(tabulate_data=1, resample_variant=2) + certified
    certificates = ("data/operating_points/", "data/decisions/")
    assert all(path.startswith(("data/studies/reports/other/", "reports/other/", *certificates)) for path in written)
    scratch.run("--", *(f"data/studies/reports/other/{name}.parquet" for name in shared))
    assert scratch.digests("data/studies/reports/other") != {}
    scratch.change("study", "schemes", value=["bf16", "hqq-w3g32-full", "mbq-w3g32-full"])
    scratch.change("report", "folder", value="reports")
    jobs, _ = scratch.plan()
    assert certified <= jobs <= certified + Counter(tabulate_decisions=1, pick_examples=1, build_page=1)
    after = scratch.digests("data/studies/reports")
    assert {path: after[path] for path in before} == before


def test_editing_a_method_reruns_its_schemes_and_what_follows(scratch) -> None:
    edit(scratch, "quantization/methods/mbq.py")
    jobs, written = scratch.plan()
    assert jobs == ONE_VARIANT + FOR_ALL
    assert all("/mbq-w3g32-full" in path or path.startswith(SHARED) for path in written)


def test_editing_a_method_that_is_found_by_its_name_reruns_its_schemes(scratch) -> None:
    edit(scratch, "quantization/methods/hqq.py")
    jobs, written = scratch.plan()
    assert jobs["quantize_model"] == jobs["train_selector"] == 1
    assert all("/hqq-w3g32-full" in path or path.startswith(SHARED) for path in written)


def test_editing_a_family_touches_its_models_alone(scratch) -> None:
    edit(scratch, "models/families/idefics3.py")
    jobs, written = scratch.plan()
    assert jobs["quantize_model"] == VARIANTS
    assert not any("/random" in path for path in written)


def test_editing_a_task_or_a_format_judges_anew_what_is_of_it(scratch) -> None:
    edit(scratch, "tasks/exact_match.py")
    edit(scratch, "data/formats/gqa.py")
    assert scratch.plan() == (Counter(), set())
    edit(scratch, "data/formats/vizwiz.py")
    jobs, _ = scratch.plan()
    assert (jobs["build_questions"], jobs["dump_features"]) == (1, VARIANTS)
    edit(scratch, "tasks/vqa.py")
    jobs, _ = scratch.plan()
    assert jobs["build_questions"] == DATASETS + 1
    assert jobs["dump_features"] > VARIANTS


def test_editing_the_checkpoint_format_reruns_quantization_and_what_follows(scratch) -> None:
    edit(scratch, "quantization/checkpoint.py")
    jobs, _ = scratch.plan()
    assert jobs["quantize_model"] == VARIANTS + 1
    assert not {"write_dataset", "prepare_model", "build_calibration"} & set(jobs)


def test_editing_what_no_job_runs_reruns_nothing(scratch) -> None:
    edit(scratch, "embedded/training/language.py")
    assert scratch.plan()[0] == Counter()


def test_changing_the_bits_of_one_scheme_touches_only_that_scheme(scratch) -> None:
    scratch.change("study", "schemes", value=["bf16", "hqq-w3g32-full", "mbq-w2g32-full"])
    jobs, written = scratch.plan()
    assert jobs == ONE_VARIANT + FOR_ALL
    assert all("/mbq-w2g32-full" in path or path.startswith(SHARED) for path in written)


def test_changing_the_table_of_one_scheme_touches_only_that_scheme(scratch) -> None:
    mix = {"method": "rtn", "group": 32, "symmetric": False, "table": [{"component": "language", "bits": 3}]}
    scratch.change("schemes", value={"mix": mix, "other": dict(mix)})
    # no scheme of the study has a table, and the page states only what the study uses
    assert scratch.plan() == (Counter(), set())
    checkpoints = [f"data/checkpoints/{MODEL}/{name}" for name in ("mix", "other")]
    scratch.run(*checkpoints)
    scratch.change("schemes", "mix", "table", value=[{"component": "language", "bits": 4, "third": "last"}])
    assert scratch.plan(*checkpoints) == (Counter(quantize_model=1), {checkpoints[0]})


def test_changing_calibration_touches_only_data_aware_schemes(scratch) -> None:
    scratch.change("calibration", "samples", value=7)
    jobs, written = scratch.plan()
    assert jobs["build_calibration"] == jobs["quantize_model"] == 1
    assert f"data/checkpoints/{MODEL}/mbq-w3g32-full" in written
    assert not any({"bf16", "hqq-w3g32-full"} & {Path(path).stem, *Path(path).parts} for path in written)


def test_the_questions_of_a_further_dataset_are_checked_once_for_a_model_and_before_they_are_answered(scratch) -> None:
    own = {"annotations": "own.json", "images": "data/embedded/scenes-multimodal/images"}
    records = json.loads((scratch.folder / "data/embedded/scenes-multimodal/annotations_test.json").read_text())
    (scratch.folder / "own.json").write_text(json.dumps(records))
    scratch.change("datasets", "own", value={"format": "vizwiz", "splits": {"test": own}})
    scratch.change("study", "shifts", value=["scenes-multimodal", "scenes-language", "own"])
    jobs, _ = scratch.plan()
    assert (jobs["check_questions"], jobs["quantize_model"], jobs["dump_features"]) == (1, 0, VARIANTS)
    records[1]["question"] = "Is <image> red?"
    (scratch.folder / "own.json").write_text(json.dumps(records))
    process = scratch.start(f"data/features/{MODEL}/bf16/own.parquet")
    printed, _ = process.communicate()
    assert process.returncode != 0
    assert f"own.json: question {records[1]['image']} holds '<image>', which is a token of {MODEL}'s prompts" in printed
    assert not (scratch.folder / "data" / "features" / MODEL / "bf16" / "own.parquet").exists()


def test_adding_a_checkpoint_of_others_runs_its_own_jobs_and_what_is_of_all_variants(scratch) -> None:
    folder = scratch.folder / "my" / "gptq"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    (folder / "model.safetensors").touch()
    schemes = ["bf16", "hqq-w3g32-full", "mbq-w3g32-full", {"external": {"path": "my/gptq", "name": "others"}}]
    scratch.change("study", "schemes", value=schemes)
    jobs, written = scratch.plan()
    # More schemes share delta, so that every certificate is sought anew.
    certified = Counter(set_operating_points=VARIANTS, decide_variant=VARIANTS)
    own = ONE_VARIANT - Counter(quantize_model=1) + Counter(import_checkpoint=1)
    assert jobs == own + FOR_ALL + certified
    certificates = ("data/operating_points/", "data/decisions/")
    assert all("/others" in path or path.startswith((*SHARED, *certificates)) for path in written)


def test_adding_a_model_touches_no_artifact_of_the_others(scratch) -> None:
    scratch.change("study", "models", value=[MODEL, "random"])
    jobs, written = scratch.plan()
    assert jobs["train_selector"] == VARIANTS
    assert all("/random" in path or path.startswith(SHARED) for path in written)


def test_adding_a_dataset_touches_no_artifact_of_the_others(first_study, study) -> None:
    """It was added by a real run. What holds all datasets was written anew, and nothing else."""
    untouched = ("data/models", "data/calibration", "data/checkpoints", "data/features", "data/selectors")
    untouched += ("data/in_distribution",)
    untouched += ("data/questions", "data/mixtures")
    for top in (*untouched, "data/embedded"):
        for path in (first_study.folder / top).rglob("*"):
            if path.is_file():
                other = study.folder / path.relative_to(first_study.folder)
                assert other.stat().st_mtime_ns == path.stat().st_mtime_ns, other
                assert other.read_bytes() == path.read_bytes(), other
    assert (study.folder / "data" / "features" / MODEL / "bf16" / "scenes-language.parquet").is_file()


def test_one_figure_builds_only_what_it_needs(scratch) -> None:
    for name in ("risk_coverage", "mixtures"):
        (scratch.folder / "reports" / f"{name}.pdf").unlink()
    assert scratch.plan("reports/risk_coverage.pdf")[0] == Counter(risk_coverage=1)
    assert scratch.plan()[0] == Counter(risk_coverage=1, mixtures=1, build_page=1)
    jobs, _ = scratch.plan("reports/risk_coverage.pdf", "--forceall")
    others = {"mixtures", "degradation", "tabulate_accuracy", "tabulate_reliability", "tabulate_sizes", "train_model"}
    others |= {"write_scores", "evaluate_variant", "break_down_variant", "select_adversarial", "build_mixtures"}
    others |= set(CERTIFICATION + COMPARISON)
    assert jobs["risk_coverage"] == 1
    assert not others & set(jobs)


def test_changing_the_number_of_resamples_reruns_evaluations_and_what_follows(scratch) -> None:
    scratch.change("evaluation", "resamples", value=21)
    decisions = Counter(set_operating_points=VARIANTS, decide_variant=VARIANTS, pick_examples=1, tabulate_decisions=1)
    assert scratch.plan()[0] == EVALUATION + decisions + DRIFT


def test_changing_what_may_ship_certifies_anew_and_judges_nothing_else(scratch) -> None:
    scratch.change("bundles", "risks", value=[0.1])
    decided = Counter(decide_variant=VARIANTS, pick_examples=1, tabulate_decisions=1, build_page=1)
    assert scratch.plan()[0] == decided + Counter(set_operating_points=VARIANTS)


def test_a_scheme_in_the_place_of_another_leaves_the_certificates_of_the_rest(scratch) -> None:
    scratch.change("study", "schemes", value=["bf16", "hqq-w3g32-full", "mbq-w2g32-full"])
    _, written = scratch.plan(f"data/operating_points/{MODEL}/bf16.json")
    assert written == set()


def test_new_weights_rerun_all_of_their_model(scratch) -> None:
    """The digests in training.json stand for the weights."""
    record: Path = scratch.folder / "data" / "trained" / MODEL / "training.json"
    record.write_text(record.read_text() + "\n")
    jobs, written = scratch.plan()
    assert jobs["prepare_model"] == 1
    assert jobs["quantize_model"] == VARIANTS
    assert not any("/random" in path for path in written)


def test_deleted_artifacts_are_rebuilt_byte_for_byte(scratch) -> None:
    before = scratch.digests("data", "reports")
    for path in (
        f"data/in_distribution/scores/{MODEL}/bf16.parquet",
        "data/mixtures/scenes-language.parquet",
        "reports/mixtures.png",
    ):
        (scratch.folder / path).unlink()
    # The others' results in distribution depend on neither.
    rebuilt = Counter(score_in_distribution=1, write_scores=1, build_mixtures=1)
    kept = Counter(evaluate_in_distribution=VARIANTS - 1, break_down_in_distribution=VARIANTS - 1)
    assert scratch.plan()[0] == rebuilt + EVALUATION - kept + JUDGED
    scratch.run()
    assert scratch.digests("data", "reports") == before
