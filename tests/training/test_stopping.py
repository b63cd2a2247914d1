"""Requests to stop, and steps that hang."""

import os
import signal
import time

from c2am_jax.training.stopping import StopRequest, Watchdog


def test_sigterm_is_noted_told_and_handled_as_before_afterwards(capfd):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with StopRequest() as stop:
            assert not stop.reached(1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.reached(2) and not heard
        assert "stopping: this step is finished" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_step_that_takes_long_is_warned_about_once(caplog):
    with Watchdog(factor=5, at_least_s=0.2) as watchdog:
        for _ in range(5):
            watchdog.beat()
            time.sleep(0.01)
        assert "a step takes" not in caplog.text
        time.sleep(0.6)
        assert caplog.text.count("a step takes") == 1
        watchdog.beat()


def test_other_work_is_not_watched_and_does_not_count_as_a_usual_step(caplog):
    with Watchdog(factor=5, at_least_s=0.2) as watchdog:
        for _ in range(5):
            watchdog.beat()
            time.sleep(0.01)
        watchdog.pause()  # an evaluation
        time.sleep(0.6)
        watchdog.beat()
        assert not caplog.text
        time.sleep(0.6)
        assert caplog.text.count("a step takes") == 1
