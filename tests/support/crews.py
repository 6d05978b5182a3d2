"""Crews for tests of batches: a worker in this process, and one that does what a script says."""

from infinitetalk.pipeline.batch.dispatch import Ended, Free, Told
from infinitetalk.pipeline.batch.worker import Worker


class OneHere:
    """A worker in this process; ``orders`` is what it was given."""

    def __init__(self, hear=lambda news: None):
        self.orders = []
        self._hear = hear
        self._happened = [Free(0)]
        self._worker = Worker(self._tell)

    def _tell(self, news):
        self._hear(news)
        self._happened.append(Told(0, news))

    def give(self, worker, order):
        self.orders.append(order)
        self._happened.append(Ended(worker, self._worker.do(order)))

    def happenings(self):
        happened, self._happened = self._happened, []
        return happened

    def replace(self, worker):
        self._happened.append(Free(worker))

    def close(self):
        pass


class Scripted:
    """Workers that begin at once; ``act`` says what happens when one is given an order."""

    def __init__(self, workers, act):
        self.orders = []
        self.replaced = []
        self._act = act
        self._happened = [Free(worker) for worker in workers]

    def give(self, worker, order):
        self.orders.append((worker, order))
        self._happened += self._act(worker, order)

    def happenings(self):
        assert self._happened, "nobody does anything"
        return [self._happened.pop(0)]

    def replace(self, worker):
        self.replaced.append(worker)
        self._happened.append(Free(worker))

    def close(self):
        pass
