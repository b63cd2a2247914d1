"""What a user sees of a training: lines of a run without a terminal, and that rates count training only."""

import io

from c2am_jax.training.step_progress import Progress


class Clock:
    """Seconds that pass when told so."""

    now = 0.0

    def __call__(self):
        return self.now

    def takes(self, seconds):
        def work(*_):
            self.now += seconds
            return "result"

        return work


def test_rate_and_time_left_are_those_of_training_alone():
    clock, file = Clock(), io.StringIO()
    with Progress(0, 100, 4, file=file, now=clock, every_s=30) as progress:
        clock.takes(5)()  # workers start
        for done in range(1, 101):
            bucket = (64, 96) if done == 3 else (64, 64)
            compiling = done in (1, 3)
            assert progress.call(clock.takes(50 if compiling else 2), 0.0, None, bucket) == "result"
            progress.step()
            if done % 10 == 0:
                expected = 2.0
                assert progress.images_per_sec(done) == expected
                progress.logged(done, {"loss": 1 / done, "lr": 0.0125})
            if done == 50:
                with progress.evaluation(done, 0.0) as found:
                    found({"bbox/AP": 0.1234, "segm/AP": -1.0} if clock.takes(300)() else {})
    assert file.getvalue().splitlines() == [
        "compiling the training step for images padded to 64x64 (height x width) ...",
        "... compiled, and a first step done, in 50 s",
        "compiling the training step for images padded to 64x96 (height x width) ...",
        "... compiled, and a first step done, in 50 s",
        "step 10/100  loss 0.100  lr 0.013  2 images/s  ETA 3 min",
        "step 30/100  loss 0.033  lr 0.013  2 images/s  ETA 2 min",
        "step 50/100  loss 0.020  lr 0.013  2 images/s  ETA 2 min",
        "evaluating step 50 ...",
        "... evaluated in 5 min  bbox/AP 12.3",
        "step 60/100  loss 0.017  lr 0.013  2 images/s  ETA 80 s",
        "step 80/100  loss 0.013  lr 0.013  2 images/s  ETA 40 s",
        "step 100/100  loss 0.010  lr 0.013  2 images/s",
    ]


def test_a_first_step_has_no_rate_and_other_processes_say_nothing():
    clock, file, hidden = Clock(), io.StringIO(), io.StringIO()
    for target, shown in ((file, True), (hidden, False)):
        with Progress(7, 8, 4, file=target, now=clock, shown=shown) as progress:
            progress.call(clock.takes(3), 0.0, None, (64, 64))
            assert progress.images_per_sec(8) is None
            progress.logged(8, {"loss": 1, "lr": 0.1})
    assert file.getvalue().splitlines()[-1] == "step 8/8  loss 1.000  lr 0.1" and not hidden.getvalue()
