"""The embedded datasets: scenes with ten simulated annotators, written in the official JSON formats.

`scenes` is the in-distribution set (VQAv2 format, with captions of train images in the ShareGPT4V format),
`scenes-captions` the same pictures with the captions of five people each (COCO captions format),
`scenes-retrieval` those of these captions that no other one repeats (Flickr30k format),
`scenes-language` its language shift (the AdVQA analogue, VQAv2 format) and `scenes-multimodal` its multimodal shift
(the VizWiz analogue, VizWiz format). Every scene has a generator of its own, seeded by the dataset's seed, the split
and the scene's number, so that a larger set begins with the scenes of a smaller one.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from quantrust.artifacts.folder_record import check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.data.formats.scene_captions import INSTRUCTION
from quantrust.data.queries import compared_text
from quantrust.embedded.digits import DigitBank, digit_banks
from quantrust.embedded.scene_captions import CAPTIONERS, people_s_caption
from quantrust.embedded.scene_questions import UNANSWERABLE, SceneQuestion, ask, ask_about_absent, caption
from quantrust.embedded.scenes import (
    SIZE,
    Degradation,
    Percept,
    Scene,
    compose_scene,
    mild_degradation,
    perceive,
    render,
    strong_degradation,
    true_percepts,
)
from quantrust.errors import QuantrustError
from quantrust.files import read_object

ANNOTATORS = 10
# Numbers of the generators' streams and of the first image; an image number says which set it belongs to.
STREAMS = {"train": 1, "dev": 2, "val": 3, "test": 4, "language": 5, "multimodal": 6}
# Share of training questions that are of a composition, or in a wording, of the language shift.
RARE_IN_TRAIN = 0.03
# Share of questions of the multimodal shift about something that the picture does not hold.
ABSENT = 0.05
DESCRIPTION = "Synthetic scenes of handwritten digits (UCI optical digits, as bundled with scikit-learn) and shapes"


@dataclass(frozen=True)
class AnnotatedScene:
    """A scene, its picture, its questions, and the people who may answer them.

    Attributes
    ----------
    image_id : int
    scene : Scene
    image : PIL.Image.Image
        RGB, 64 x 64 pixels.
    truth : tuple of Percept
    questions : list of SceneQuestion
    seed : tuple of int
        Seed of the scene, from which the annotators' are derived.
    """

    image_id: int
    scene: Scene
    image: Image.Image
    truth: tuple[Percept, ...]
    questions: list[SceneQuestion]
    seed: tuple[int, ...]

    def annotator(self, number: int) -> tuple[Percept, ...]:
        """Return what annotator `number` sees; the same person answers every question about the picture."""
        return perceive(self.scene, np.random.default_rng([*self.seed, 1 + number]))

    def answers(self) -> list[list[str]]:
        """Return the ten answers to each question."""
        people = [self.annotator(k) for k in range(ANNOTATORS)]
        return [[question.answer(person) for person in people] for question in self.questions]

    def captions(self) -> list[str]:
        """Return the captions that the first `CAPTIONERS` annotators write."""
        return [
            people_s_caption(self.annotator(k), np.random.default_rng([*self.seed, 1 + ANNOTATORS + k]))
            for k in range(CAPTIONERS)
        ]


def _open_scene(seed: int, split: str, number: int) -> tuple[tuple[int, ...], np.random.Generator, DigitBank]:
    key = (seed, STREAMS[split], number)
    return key, np.random.default_rng([*key, 0]), digit_banks()[split]


def _degradation(split: str, rng: np.random.Generator) -> Degradation:
    return strong_degradation(rng) if split == "multimodal" else mild_degradation(rng)


def generate(split: str, images: int, questions_per_image: int, seed: int) -> Iterator[AnnotatedScene]:
    """Yield annotated scenes.

    Parameters
    ----------
    split : {"train", "dev", "val", "test", "language", "multimodal"}
        Decides digits, degradation and wording.
    images : int
    questions_per_image : int
    seed : int
    """
    for number in range(images):
        key, rng, bank = _open_scene(seed, split, number)
        scene = compose_scene(rng, bank, _degradation(split, rng))
        truth = true_percepts(scene)
        if split == "language":
            questions = ask(truth, rng, questions_per_image, style="language", rare=0.5)
        elif split == "multimodal":
            absent = rng.random() < ABSENT
            questions = [ask_about_absent(truth, rng)] if absent else ask(truth, rng, questions_per_image, style="chat")
            questions = [_answerable_by_sight(question) for question in questions]
        elif split == "train":
            questions = _train_questions(truth, rng, questions_per_image)
        else:
            questions = ask(truth, rng, questions_per_image)
        image_id = STREAMS[split] * 1_000_000 + number
        yield AnnotatedScene(image_id, scene, render(scene, bank), truth, questions, key)


def _train_questions(truth: tuple[Percept, ...], rng: np.random.Generator, n: int) -> list[SceneQuestion]:
    """Write plain questions, with a few in the words and compositions of the shifts."""
    rare = int(rng.binomial(n, RARE_IN_TRAIN))
    questions = ask(truth, rng, n - rare)
    for _ in range(rare):
        style = ("plain", "language", "chat")[int(rng.integers(3))]
        questions += ask(truth, rng, 1, style=style, rare=1.0 if style == "plain" else 0.0)
    return questions


def _answerable_by_sight(question: SceneQuestion) -> SceneQuestion:
    """Return the question, with people who missed what it is about, or saw nothing, saying so instead of guessing."""

    def answer(percepts: Sequence[Percept]) -> str:
        if any(not percepts[k].visible for k in question.referents) or not any(p.visible for p in percepts):
            return UNANSWERABLE
        return question.answer(percepts)

    return SceneQuestion(question.kind, question.text, answer, question.referents)


def majority(answers: list[str]) -> str:
    """Return the most frequent answer, the alphabetically first of several."""
    counts = Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def answer_type(answer: str) -> str:
    """Return the official answer type of a majority answer."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdigit() else "other"


def _question_id(image_id: int, number: int) -> int:
    return image_id * 100 + number


def _save_image(folder: Path, scene: AnnotatedScene) -> str:
    """Write the picture of a scene into a dataset's folder and return the name of its file."""
    name = f"{scene.image_id:012d}.png"
    scene.image.save(folder / "images" / name)
    return name


def _annotation(scene: AnnotatedScene, number: int, answers: list[str]) -> dict:
    question, top = scene.questions[number], majority(answers)
    return {
        "question_type": " ".join(question.text.split()[:2]),
        "multiple_choice_answer": top,
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": k + 1} for k, answer in enumerate(answers)
        ],
        "image_id": scene.image_id,
        "answer_type": answer_type(top),
        "question_id": _question_id(scene.image_id, number),
        "question_kind": question.kind,
    }


def _write_compact(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _write_vqav2(folder: Path, subset: str, questions: list[dict], annotations: list[dict]) -> None:
    """Write the two files of one subset in the official VQAv2 layout."""
    head = {
        "info": {"description": DESCRIPTION, "version": "1.0"},
        "data_type": "scenes",
        "data_subtype": subset,
        "license": {"name": "Apache-2.0"},
    }
    _write_compact(folder / f"questions_{subset}.json", {**head, "task_type": "Open-Ended", "questions": questions})
    _write_compact(folder / f"annotations_{subset}.json", {**head, "annotations": annotations})


def write_scenes(
    out_dir: str | Path, *, images: dict[str, int], questions_per_image: int, captions: int, seed: int
) -> None:
    """Write the in-distribution set: dev, val and test questions, and captions of train images.

    Parameters
    ----------
    out_dir : str or Path
        Gets `questions_<split>.json`, `annotations_<split>.json`, `captions.json` and `images/`.
    images : dict of str to int
        Images of the splits `dev`, `val` and `test`.
    questions_per_image : int
    captions : int
        Number of train images with a caption, for calibration.
    seed : int
    """
    with artifact_folder(out_dir) as folder:
        (folder / "images").mkdir()
        for split, count in images.items():
            _write_split(folder, split, count, questions_per_image, seed)
        _write_calibration(folder, captions, seed, lambda scene: caption(scene.truth))


def _write_split(folder: Path, split: str, images: int, questions_per_image: int, seed: int) -> None:
    questions, annotations = [], []
    for scene in generate(split, images, questions_per_image, seed):
        name = _save_image(folder, scene)
        for number, answers in enumerate(scene.answers()):
            annotations.append(_annotation(scene, number, answers))
            questions.append(
                {
                    "image_id": scene.image_id,
                    "question": scene.questions[number].text,
                    "question_id": _question_id(scene.image_id, number),
                    "image": name,
                }
            )
    _write_vqav2(folder, split, questions, annotations)


def write_scene_captions(out_dir: str | Path, *, images: dict[str, int], captions: int, seed: int) -> None:
    """Write the pictures of `write_scenes` with the captions of five people each, in the official COCO layout.

    Parameters
    ----------
    out_dir : str or Path
        Gets `captions_<split>.json`, `images/`, and `captions.json`, train images with one person's caption each.
    images : dict of str to int
        Images of the splits `dev`, `val` and `test`.
    captions : int
        Number of train images with a caption, for calibration.
    seed : int
    """
    with artifact_folder(out_dir) as folder:
        (folder / "images").mkdir()
        for split, count in images.items():
            listed, annotations = [], []
            for scene in generate(split, count, 1, seed):
                name = _save_image(folder, scene)
                listed.append({"id": scene.image_id, "file_name": name, "height": SIZE, "width": SIZE})
                for number, text in enumerate(scene.captions()):
                    caption_id = _question_id(scene.image_id, number)
                    annotations.append({"id": caption_id, "image_id": scene.image_id, "caption": text})
            # the facts say by what such captions are judged
            info = {"description": DESCRIPTION, "version": "1.0", "facts": True}
            _write_compact(
                folder / f"captions_{split}.json", {"info": info, "images": listed, "annotations": annotations}
            )
        _write_calibration(folder, captions, seed, lambda scene: scene.captions()[scene.image_id % CAPTIONERS])


def write_scene_retrieval(
    out_dir: str | Path, *, images: dict[str, int], captions_per_image: int, captions: int, seed: int
) -> None:
    """Write the pictures of `write_scenes` with captions that occur once in their split, in Flickr30k's layout.

    Parameters
    ----------
    out_dir : str or Path
        Gets `dataset_scenes.json`, `images/`, and `captions.json` as `write_scene_captions` writes it.
    images : dict of str to int
        Images of the splits, by their names.
    captions_per_image : int
        Most captions of an image.
    captions : int
        Number of train images with a caption, for calibration.
    seed : int

    Raises
    ------
    QuantrustError
        If every caption of a picture is also one of another picture.
    """
    with artifact_folder(out_dir) as folder:
        (folder / "images").mkdir()
        records = []
        for split, count in images.items():
            for scene, texts in unique_captions(split, count, seed):
                records.append(
                    {
                        "imgid": scene.image_id,
                        "filename": _save_image(folder, scene),
                        "split": split,
                        "sentences": [{"raw": text, "imgid": scene.image_id} for text in texts[:captions_per_image]],
                    }
                )
        _write_compact(folder / "dataset_scenes.json", {"dataset": "scenes", "images": records})
        _write_calibration(folder, captions, seed, lambda scene: scene.captions()[scene.image_id % CAPTIONERS])


def unique_captions(split: str, images: int, seed: int) -> list[tuple[AnnotatedScene, list[str]]]:
    """Return the scenes of a split, each with those of its captions that occur once in the split.

    Parameters
    ----------
    split, images, seed
        As in `generate`.

    Raises
    ------
    QuantrustError
        If a scene is left without a caption.
    """
    scenes = [(scene, scene.captions()) for scene in generate(split, images, 1, seed)]
    counts = Counter(compared_text(text) for _, texts in scenes for text in texts)
    kept = [(scene, [text for text in texts if counts[compared_text(text)] == 1]) for scene, texts in scenes]
    for scene, texts in kept:
        if not texts:
            raise QuantrustError(
                f"scenes of seed {seed}: every caption of the image {scene.image_id} is also one of another image of "
                f"{split}; take another seed or fewer images"
            )
    return kept


def _write_calibration(folder: Path, captions: int, seed: int, written: Callable[[AnnotatedScene], str]) -> None:
    """Write train images with a caption each, in the ShareGPT4V layout."""
    records = []
    for scene in generate("train", captions, 1, seed):
        name = _save_image(folder, scene)
        turns = [("human", f"<image>\n{INSTRUCTION}"), ("gpt", written(scene))]
        conversation = [{"from": speaker, "value": text} for speaker, text in turns]
        records.append({"id": str(scene.image_id), "image": name, "conversations": conversation})
    _write_compact(folder / "captions.json", records)


def write_language_candidates(out_dir: str | Path, *, images: int, questions_per_image: int, seed: int) -> None:
    """Write the candidates of the language shift, in the layout of `write_scenes`, as the split `test`."""
    with artifact_folder(out_dir) as folder:
        (folder / "images").mkdir()
        _write_split(folder, "language", images, questions_per_image, seed)
        for kind in ("questions", "annotations"):
            (folder / f"{kind}_language.json").rename(folder / f"{kind}_test.json")


def select_adversarial(
    candidates_dir: str | Path,
    qualities: dict[str, float],
    out_dir: str | Path,
    *,
    questions: int,
    wrong_share: float,
    seed: int,
) -> None:
    """Keep candidates so that a stated share is of questions that a model answered wrongly.

    Parameters
    ----------
    candidates_dir : str or Path
        As `write_language_candidates` wrote it.
    qualities : dict of str to float
        Quality of the adversary's answer to every candidate, by question id.
    out_dir : str or Path
        Gets the kept questions, annotations and images.
    questions : int
        Number of questions to keep.
    wrong_share : float in [0, 1]
        Share of kept questions with a quality below one half.
    seed : int

    Raises
    ------
    QuantrustError
        If a candidate has no quality, or there are too few candidates of either sort.
    """
    candidates_dir = Path(candidates_dir)
    check_folder(candidates_dir)
    listed = read_object(candidates_dir / "questions_test.json")["questions"]
    annotated = read_object(candidates_dir / "annotations_test.json")["annotations"]
    missing = [q["question_id"] for q in listed if str(q["question_id"]) not in qualities]
    if missing:
        raise QuantrustError(f"{candidates_dir}: the adversary did not answer {len(missing)} candidates ({missing[0]})")
    wrong = np.array([qualities[str(q["question_id"])] < 0.5 for q in listed])
    wanted = {True: round(questions * wrong_share), False: questions - round(questions * wrong_share)}
    rng = np.random.default_rng([seed, 77])
    kept: set[int] = set()
    for sort, count in wanted.items():
        rows = np.flatnonzero(wrong == sort)
        if len(rows) < count:
            raise QuantrustError(
                f"{candidates_dir}: {len(rows)} candidates were answered {'wrongly' if sort else 'rightly'}, but "
                f"{count} are wanted; raise the number of candidate images or change wrong_share"
            )
        kept.update(rng.permutation(rows)[:count].tolist())
    questions_kept = [q for k, q in enumerate(listed) if k in kept]
    annotations_kept = [a for k, a in enumerate(annotated) if k in kept]
    with artifact_folder(out_dir) as folder:
        (folder / "images").mkdir()
        _write_vqav2(folder, "test", questions_kept, annotations_kept)
        for name in sorted({q["image"] for q in questions_kept}):
            (folder / "images" / name).write_bytes((candidates_dir / "images" / name).read_bytes())


def write_multimodal(out_dir: str | Path, *, images: int, seed: int) -> None:
    """Write the multimodal shift: one conversational question an image, in the official VizWiz layout.

    Parameters
    ----------
    out_dir : str or Path
        Gets `annotations_test.json` and `images/`.
    images : int
        Number of images, and of questions.
    seed : int
    """
    with artifact_folder(out_dir) as folder:
        (folder / "images").mkdir()
        records = []
        for scene in generate("multimodal", images, 1, seed):
            name = _save_image(folder, scene)
            (answers,) = scene.answers()
            top = majority(answers)
            records.append(
                {
                    "image": name,
                    "question": scene.questions[0].text,
                    "answers": [{"answer": answer, "answer_confidence": "yes"} for answer in answers],
                    "answer_type": UNANSWERABLE if top == UNANSWERABLE else answer_type(top),
                    "answerable": int(top != UNANSWERABLE),
                    "question_kind": scene.questions[0].kind,
                }
            )
        _write_compact(folder / "annotations_test.json", records)


# By the names in `quantrust.embedded.catalogue`, which says how the files are called.
WRITERS: dict[str, Callable[..., None]] = {
    "scenes": write_scenes,
    "scenes-captions": write_scene_captions,
    "scenes-retrieval": write_scene_retrieval,
    "scenes-language-candidates": write_language_candidates,
    "scenes-multimodal": write_multimodal,
}


def write_dataset(name: str, out_dir: str | Path, settings: dict) -> None:
    """Write one embedded dataset with the settings of its writer.

    Parameters
    ----------
    name : str
        One of `quantrust.embedded.catalogue.written_datasets`.
    out_dir : str or Path
    settings : dict
        Keyword arguments of the writer.
    """
    WRITERS[name](out_dir, **settings)
