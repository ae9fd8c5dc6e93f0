from collections import Counter

from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.questions import ask, family
from contentv.evaluation.report import FAMILIES
from contentv.toyworld.captions import parse
from contentv.toyworld.dataset import sample
from contentv.toyworld.scene import HELD_OUT


def config(**settings: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"suite": "toybench", **settings})


def test_half_of_each_split_and_caption() -> None:
    questions = list(ask(config(num_prompts=40)))
    assert Counter((q.split, q.kind) for q in questions) == {
        (split, kind): 10 for split in ("seen", "held_out") for kind in ("short", "long")
    }
    assert len({q.name for q in questions}) == len({q.seed for q in questions}) == 40


def test_more_prompts_begin_with_the_same_ones() -> None:
    few, many = (list(ask(config(num_prompts=n))) for n in (6, 12))
    assert many[:6] == few


def test_a_question_asks_what_its_text_states() -> None:
    for question in ask(config(num_prompts=20)):
        facts = question.sample.scene.facts
        assert ((facts["colour"], facts["shape"]) in HELD_OUT) == (question.split == "held_out")
        assert question.caption.facts == parse(question.caption.text)
        assert question.caption.facts.items() <= facts.items()


def test_one_split_one_kind() -> None:
    questions = list(ask(config(num_prompts=5, split="held_out", captions="long")))
    assert {(q.split, q.kind) for q in questions} == {("held_out", "long")}
    assert [q.index for q in questions] == [0, 1, 2, 3, 4]


def test_reconstructions_are_asked_for_every_fact() -> None:
    for question in ask(config(suite="autoencoder", num_prompts=4)):
        assert question.kind == "scene"
        assert question.caption.facts == question.sample.scene.facts


def test_prompts_and_noise_change_with_the_seed() -> None:
    one, other = (list(ask(config(num_prompts=8, seed=seed))) for seed in (1, 2))
    assert {q.seed for q in one}.isdisjoint(q.seed for q in other)
    assert [q.caption.text for q in one] != [q.caption.text for q in other]


def test_every_family_occurs() -> None:
    scenes = [sample(3, index).scene for index in range(200)]
    assert {family(scene) for scene in scenes} == set(FAMILIES)
    for scene in scenes:
        assert (family(scene) == "two") == (len(scene.bodies) == 2)
        assert (family(scene) == "pan") == (scene.pan != 0)
