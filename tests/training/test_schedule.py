"""The schedule follows the length of the run, and progress is counted in images."""

import dataclasses

import pytest

from c2am_jax.config import load_experiment, lvis
from c2am_jax.experiment import Experiment, TrainSettings
from c2am_jax.training.schedule import Schedule


@pytest.mark.parametrize(
    ("steps", "warmup", "drops"), [(30, 3, [20, 28]), (400, 40, [267, 367]), (1000, 100, [667, 917])]
)
def test_a_short_run_has_a_short_warm_up_and_drops_near_its_end(steps, warmup, drops):
    """60 images, 4 in a batch."""
    schedule = Schedule(TrainSettings(steps=steps, batch_size=4), 15)
    assert (schedule.warmup, schedule.drops, schedule.last_step) == (warmup, drops, steps)
    assert schedule.text() == (
        f"15 steps an epoch, {steps} steps: warm-up {warmup}, drops at {drops[0]} and {drops[1]}, learning rate 0.005 "
        "for batch 4"
    )
    assert float(schedule.rate(warmup)) == pytest.approx(0.005)
    assert float(schedule.rate(drops[1])) == pytest.approx(0.005 * 0.01)


def test_drops_that_come_to_the_same_step_are_one():
    schedule = Schedule(TrainSettings(steps=5, batch_size=4, lr_drops=(0.7, 0.9)), 15)
    assert schedule.drops == [4] and ", drops at 4, learning rate" in schedule.text()
    assert float(schedule.rate(4)) == pytest.approx(0.005 * 0.1)


def test_the_papers_recipe_is_the_papers():
    """24 epochs of LVIS v1.0, drops after 16 and 22, 500 steps of warm-up."""
    schedule = Schedule(lvis("x", "c2am").train, 6212)
    assert (schedule.length, schedule.drops, schedule.warmup) == (24 * 6212, [16 * 6212, 22 * 6212], 500)


def test_what_is_asked_for_is_taken():
    asked = TrainSettings(steps=100, warmup_steps=80, lr_steps=(90, 300))
    schedule = Schedule(asked, 10)
    assert (schedule.warmup, schedule.drops) == (80, [90, 300])
    assert "warm-up 80, drops at 90, learning" in schedule.text()
    assert "no warm-up, no drops" in Schedule(TrainSettings(warmup_steps=0, lr_drops=()), 10).text()


def test_recipes_keep_their_steps():
    """What they were before the schedule followed the length."""
    assert Schedule(load_experiment("glyphs_c2am").train, 300).drops == [840, 1080]
    assert Schedule(load_experiment("glyphs_c2am").train, 300).warmup == 200
    second = Schedule(load_experiment("methods/loce:glyphs").train, 300)
    assert (second.length, second.drops, second.warmup) == (200, [140, 180], 20)
    bags = Schedule(load_experiment("methods/bags").train, 100)
    assert (bags.length, bags.drops) == (1200, [800, 1100])


def test_another_batch_size_goes_on_at_the_same_place_and_ends_after_the_same_epochs():
    """4 epochs of 60 images: 30 steps each with 2 images, 15 with 4."""
    train = TrainSettings(epochs=4, batch_size=4, lr_drops=(0.5, 0.75))
    doubled = Schedule(train, 15).resumed(step=45, position=45, steps_per_epoch=30)  # one epoch and a half are done
    assert doubled.last_step == 45 + 38 and doubled.length == 60
    assert [step for step in range(45, 83) if doubled.ends_epoch(step)] == [53, 68]
    assert float(doubled.rate(52)) == pytest.approx(0.005) and float(doubled.rate(53)) == pytest.approx(0.0005)
    back = Schedule(dataclasses.replace(train, batch_size=2), 30).resumed(53, 30, 15)
    assert back.last_step == 53 + 60


def test_a_config_of_an_older_version_keeps_its_drops():
    tree = load_experiment("glyphs_c2am").as_json()
    del tree["train"]["lr_drops"], tree["train"]["warmup_share"]
    tree["train"] |= {"lr_epochs": [2.8, 3.6], "warmup_steps": 200}
    schedule = Schedule(Experiment.from_dict(tree).train, 300)
    assert (schedule.drops, schedule.warmup) == ([840, 1080], 200)
