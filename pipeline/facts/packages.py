"""Python packages that a run does without: whether one is there, and which version, without importing it.

Knows nothing of what a package is needed for; that is in the tables of solvers and attention backends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ..errors import InputError, Unavailable


@dataclass(frozen=True)
class Package:
    """A package of Python's registry.

    Attributes:
        module: what is imported.
        name: what is installed.
        others: modules that have the same under the names of other packages.
        oldest: the oldest version that has what is needed, such as "0.35"; any where it is empty.
    """

    module: str
    name: str
    oldest: str = ""
    others: tuple[str, ...] = ()

    def installed(self) -> str | None:
        """The version that is there, "" where it came by another name, None where there is none."""
        if self.found() is None:
            return None
        try:
            return version(self.name)
        except PackageNotFoundError:
            return ""

    def found(self) -> str | None:
        """The module to import, or None."""
        return next((module for module in (self.module, *self.others) if find_spec(module) is not None), None)

    def obstacle(self) -> Unavailable | None:
        """Why it cannot be used, or None."""
        found = self.installed()
        if found is None:
            return Unavailable(f"the Python package {self.name} is not installed")
        if found and _numbers(found) < _numbers(self.oldest):
            return Unavailable(f"the Python package {self.name} is {found}, {self.oldest} or newer is needed")
        return None

    def require(self, flag: str, otherwise: str) -> None:
        """Refuse a flag where the package cannot be used.

        Args:
            flag: with its value, such as "--attention flash".
            otherwise: what needs no package.

        Raises:
            InputError: it is missing or too old.
        """
        if (obstacle := self.obstacle()) is not None:
            wanted = f"'{self.name}>={self.oldest}'" if self.oldest else self.name
            raise InputError(f"{flag}: {obstacle}. Install it with: pip install {wanted}, or use {otherwise}.")


def _numbers(text: str) -> tuple[int, ...]:
    """ "0.35.1.dev0" -> (0, 35)."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


TRITON = Package("triton", "triton")
TORCHAUDIO = Package("torchaudio", "torchaudio")
