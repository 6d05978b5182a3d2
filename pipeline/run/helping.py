"""A helper: the process of one card, which makes videos together with the others for the program that started it.

Ends with that program, and with the first fault: the program ends the others then, and starts anew. Knows nothing of
who asks.
"""

from __future__ import annotations

import os
import pickle
import time
import traceback
from multiprocessing.connection import Connection
from typing import NoReturn

from ..errors import InputError, in_short
from ..parallel.cards import Cards, join, leave
from .generator import Generator, memory_errors
from .orders import Failed, Message, Order, Ready, Told, received, worth_sending
from .progress import Event

DESCRIPTOR, DEVICE = "INFINITETALK_HELPER", "INFINITETALK_HELPER_DEVICE"
WAITS = 5.0  # seconds after a fault, which mostly follows from another process's end: that one tells
FAULT = 1


def main() -> NoReturn:
    """Make what is ordered until nobody is there to order."""
    connection = Connection(int(os.environ[DESCRIPTOR]))
    try:
        with memory_errors():
            _work(connection, join(os.environ[DEVICE]))
    except (EOFError, BrokenPipeError):
        pass  # the program has ended
    except InputError as error:
        _tell(connection, Failed(str(error)))
    except BaseException as error:
        traceback.print_exc()
        time.sleep(WAITS)
        number = int(os.environ["RANK"]) + 1
        _tell(connection, Failed(f"The process of card {number} failed ({in_short(error)}); the log tells more."))
    leave(FAULT)


def _work(connection: Connection, cards: Cards) -> NoReturn:
    def listen(event: Event) -> None:
        if cards.first and (worth := worth_sending(event)) is not None:
            _tell(connection, Told(worth))

    generator: Generator | None = None
    while True:
        _tell(connection, Ready())
        order: Order = pickle.loads(connection.recv_bytes())
        if generator is None or generator.settings != order.models:
            generator = None  # before the memory is needed again
            generator = Generator(order.models, listen, keep_models=True, cards=cards)
        job = received(order.job, generator.files.speech_encoder, cards.device)
        generator.save(job, order.path, order.settings, order.tags)
        generator.release()
        del job


def _tell(connection: Connection, message: Message) -> None:
    connection.send_bytes(pickle.dumps(message))
