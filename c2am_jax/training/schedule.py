"""How long a run is, and its learning rate: everything follows the length of the run."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import optax

from c2am_jax.experiment import TrainSettings
from c2am_jax.wording import noun

MOST_WARMUP = 500  # steps, unless the config asks for another number


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The schedule of a run, in positions: steps from its beginning if it had this batch size all the time.

    Attributes:
      train: length, rates and where they change.
      steps_per_epoch: with this batch size.
      offset: position minus step; not 0 once a run was resumed with another batch size.
    """

    train: TrainSettings
    steps_per_epoch: int
    offset: int = 0

    @property
    def length(self) -> int:
        """Positions of the whole run: `train.steps` if positive, else `train.epochs` epochs."""
        return self.train.steps if self.train.steps > 0 else self.train.epochs * self.steps_per_epoch

    @property
    def last_step(self) -> int:
        """The step that ends the run."""
        return self.length - self.offset

    @property
    def warmup(self) -> int:
        """Positions of the warm-up: `train.warmup_steps`; -1 is 500, but at most `train.warmup_share` of the run."""
        asked = self.train.warmup_steps
        return asked if asked >= 0 else min(MOST_WARMUP, int(self.train.warmup_share * self.length))

    @property
    def drops(self) -> list[int]:
        """Positions at which the rate drops: `train.lr_steps`, else the shares `train.lr_drops` of the run.

        In a run of a few steps, shares that come to the same step are one drop.
        """
        return [*self.train.lr_steps] or sorted({round(share * self.length) for share in self.train.lr_drops})

    @property
    def peak(self) -> float:
        """The rate between warm-up and first drop: `train.base_lr` is for 16 images."""
        return self.train.base_lr * self.train.batch_size / 16

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch is over when `step` steps are done."""
        return (step + self.offset) % self.steps_per_epoch == 0

    @property
    def rate(self) -> Callable:
        """Steps done -> learning rate: linear warm-up, then `peak`, times `train.lr_gamma` at each drop."""
        decayed = optax.piecewise_constant_schedule(self.peak, {step: self.train.lr_gamma for step in self.drops})
        warmup, factor, offset = self.warmup, self.train.warmup_factor, self.offset

        def at(step):
            position = step + offset if offset else step
            if not warmup:
                return decayed(position)
            done = jnp.minimum(position / max(warmup - 1, 1), 1.0)
            return decayed(position) * (factor + (1 - factor) * done)

        return at

    def resumed(self, step: int, position: int, steps_per_epoch: int) -> "Schedule":
        """This schedule from a checkpoint of `step` on, with the same number of epochs behind it.

        Args:
          step: steps done.
          position: of the checkpoint, in the steps of its own batch size.
          steps_per_epoch: with that batch size.
        """
        here = round(position * self.steps_per_epoch / steps_per_epoch)
        return dataclasses.replace(self, offset=here - step)

    def text(self) -> str:
        """ "5 steps an epoch, 400 steps: warm-up 40, drops at 267 and 367, learning rate 0.005 for batch 4"."""
        inside = [str(drop - self.offset) for drop in self.drops if drop < self.length]
        drops = f"drops at {' and '.join(inside)}" if inside else "no drops"
        warmup = f"warm-up {self.warmup}" if self.warmup else "no warm-up"
        return (
            f"{self.steps_per_epoch} {noun(self.steps_per_epoch, 'step')} an epoch, {self.last_step} "
            f"{noun(self.last_step, 'step')}: {warmup}, {drops}, "
            f"learning rate {self.peak:g} for batch {self.train.batch_size}"
        )
