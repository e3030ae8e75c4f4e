"""When to log, sample and save: every N images, or by a share of the training time."""

from __future__ import annotations


class Period:
    """Due when a multiple of `every` images is crossed. With 0 it goes by time, so that its action costs at most `share` of it."""

    def __init__(self, every: int, least: float, growth: float = 0.0, share: float = 0.02, warmup: int = 0) -> None:
        self.every = every  # images; 0 = by time
        self.least = least  # seconds between two actions, at least
        self.growth = growth  # ... and at least this share of the training time so far: actions become rarer
        self.share = share  # of the training time that the action may cost
        self.warmup = warmup  # first actions whose cost does not count, because they load libraries
        self.last_time, self.cost = 0.0, 0.0  # seconds

    def due(self, before: int, after: int, seconds: float) -> bool:
        """Whether to act after a step from `before` to `after` images, with `seconds` of training in all."""
        if self.every:
            return after // self.every > before // self.every
        if seconds - self.last_time < max(self.least, self.growth * seconds):
            return False
        # Learning is fastest at the start: what becomes rarer also comes whenever the time has doubled, for a tenth of it at most.
        doubled = bool(self.growth) and seconds >= max(2 * self.last_time, 10 * self.cost)
        return doubled or seconds - self.last_time >= self.cost / self.share

    def record(self, seconds: float, cost: float) -> None:
        """Remember the time of an action and its cost in seconds."""
        self.last_time, self.cost = seconds, 0.0 if self.warmup else max(cost, self.cost / 2)
        self.warmup = max(0, self.warmup - 1)
