"""The backends of ``--attention``: a row for each, with all that is known of it without PyTorch.

What computes is in ``models/transformer/attention.py``, by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from .packages import Package
from .words import listed

Capability = tuple[int, int]  # the compute capability of a card


@dataclass(frozen=True)
class AttentionFacts:
    """One backend.

    Attributes:
        help: what it is good for, for people.
        needs_card: whether it needs a CUDA card and 16-bit weights.
        cards: those that have it, in words; empty for all.
        capabilities: their compute capabilities, such as "9.0", or "10.x" for all of a generation; none for all.
        package: what it needs; None for PyTorch alone.
        bits: to which it rounds what goes in; None where it is exact.
        vectors: what it holds beyond exact ones, in vectors of the model's width for each token.
        automatic: why "auto" takes it, for people; empty where it never does.
        fastest_on: the compute capabilities where it is the fastest exact one, so that "auto" takes it there.
    """

    name: str
    help: str = ""
    needs_card: bool = True
    cards: str = ""
    capabilities: tuple[str, ...] = ()
    package: Package | None = None
    bits: int | None = None
    vectors: float = 0
    automatic: str = ""
    fastest_on: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return self.bits is None

    def check_package(self) -> None:
        """Raises InputError: the package that it needs is missing or too old."""
        if self.package is not None:
            self.package.require(f"--attention {self.name}", "--attention auto")

    def check_card(self, capability: Capability) -> None:
        """Raises InputError: a card of this compute capability does not have it."""
        if self.capabilities and not _among(capability, self.capabilities):
            raise InputError(
                f"--attention {self.name} needs {self.cards} (compute capability {listed(self.capabilities, 'or')}); "
                f"this one has {'.'.join(map(str, capability))}. Use --attention auto."
            )


PLAIN = AttentionFacts(
    "sdpa", "PyTorch's own, which runs everywhere", needs_card=False, automatic="PyTorch picks its own kernel"
)
FLASH3 = Package("fa3_fwd_interface", "fa3-fwd", others=("flash_attn_interface",))
_ROWS = (
    PLAIN,
    AttentionFacts(
        "flash3",
        "FlashAttention 3, exact, for Hopper cards in bf16",
        cards="a Hopper card",
        capabilities=("9.0",),
        package=FLASH3,
        automatic="Hopper card, bf16: FlashAttention 3 is the fastest exact kernel there",
        fastest_on=("9.0",),
    ),
    AttentionFacts(
        "flash3_fp8",
        "the same in 8 bits, the fastest on Hopper, not exact",
        cards="a Hopper card",
        capabilities=("9.0",),
        package=FLASH3,
        bits=8,
        vectors=1.5,  # queries, keys and values in 8 bits
    ),
    AttentionFacts(
        "cudnn",
        "PyTorch's, by cuDNN",
        automatic="Hopper card, 16-bit: cuDNN is the fastest exact kernel there",
        fastest_on=("9.0",),
    ),
    AttentionFacts(
        "cudnn_fp8",
        "faster on Hopper and data-centre Blackwell, not exact",
        cards="a Hopper or data-centre Blackwell card",
        capabilities=("9.0", "10.x"),
        package=Package("cudnn", "nvidia-cudnn-frontend"),
        bits=8,
        vectors=1.5,  # queries, keys and values in 8 bits, and the result read back
    ),
    AttentionFacts(
        "flash",
        "PyTorch's own attention is used without it",
        package=Package("flash_attn", "flash-attn"),
    ),
    AttentionFacts(
        "sage",
        "faster on RTX cards, not exact",
        package=Package("sageattention", "sageattention"),
        bits=8,
        vectors=1.5,
    ),
)
ATTENTION: Mapping[str, AttentionFacts] = {row.name: row for row in _ROWS}


def automatic_attention(capability: Capability | None) -> tuple[AttentionFacts, ...]:
    """What "auto" takes, the best first; the last one works everywhere.

    Args:
        capability: of a CUDA card that computes in 16 bits; None elsewhere.
    """
    found = [row for row in _ROWS if capability is not None and _among(capability, row.fastest_on)]
    return (*(row for row in found if row.package is None or row.package.found() is not None), PLAIN)


def extra_vectors(name: str) -> float:
    """``AttentionFacts.vectors`` of a value of the setting; "auto" takes exact ones only."""
    return ATTENTION[name].vectors if name in ATTENTION else 0


def attention_help() -> str:
    """One line about all of them."""
    rounding = [row.name for row in ATTENTION.values() if not row.exact]
    return f"attention kernel (auto: the fastest exact one; {listed(rounding)} compute in 8 bits: faster, not exact)"


def _among(capability: Capability, patterns: tuple[str, ...]) -> bool:
    major, minor = capability
    return f"{major}.{minor}" in patterns or f"{major}.x" in patterns
