"""The solvers of ``--sample_solver``: a row for each, with all that is known of it without PyTorch.

What walks the noise levels is in ``sampling/solvers.py``, by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .packages import Package
from .words import listed

USUAL_STEPS = 40  # upstream's for its own schedule
_DIFFUSERS = Package("diffusers", "diffusers", oldest="0.35")
_SCIPY = Package("scipy", "scipy")
_TORCHSDE = Package("torchsde", "torchsde")


@dataclass(frozen=True)
class SolverFacts:
    """One solver.

    Attributes:
        help: what it is, for people, after its name; empty where the package that it needs says enough.
        package: what it needs; None for nothing beyond the engine.
        steps: the only number of steps that it was made for; None for any.
        draws: whether it draws noise in every step.
        upstream: whether MeiGen's own command has it.
        kijai: schedulers of ComfyUI-WanVideoWrapper that it stands for, and what differs ("" for nothing).
        comfy: samplers of ComfyUI's own nodes that it stands for; ``--sample_schedule`` spaces their levels.
        on_device: whether their noise is the device's.
        by_seed: whether their noise follows from the seed alone, as one path.
        drops_last: whether they make one step more and leave the last level above 0 out.
        starts_below: whether they start a little below pure noise.
        least: the fewest steps that it can take.
    """

    name: str
    help: str = ""
    package: Package | None = None
    steps: int | None = None
    draws: bool = False
    upstream: bool = False
    kijai: Mapping[str, str] = field(default_factory=dict)
    comfy: tuple[str, ...] = ()
    on_device: bool = False
    by_seed: bool = False
    drops_last: bool = False
    starts_below: bool = False
    least: int = 1

    def check(self) -> None:
        """Raises InputError: the package that it needs is missing or too old."""
        if self.package is not None:
            self.package.require(f"--sample_solver {self.name}", "--sample_solver euler")


_ROWS = (
    SolverFacts(
        "euler",
        "is upstream's",
        upstream=True,
        kijai={"multitalk": "upstream's schedule, which the graph runs with 4 steps whatever steps says"},
    ),
    SolverFacts("flowmatch_distill", "is for 4-step LoRAs", steps=4, kijai={"flowmatch_distill": ""}),
    SolverFacts("unipc", package=_DIFFUSERS),
    SolverFacts("lcm", draws=True),
    SolverFacts("dpm++", kijai={"dpm++": ""}),
    SolverFacts(
        "dpm++_sde", "is what most graphs of ComfyUI-WanVideoWrapper have", draws=True, kijai={"dpm++_sde": ""}
    ),
    SolverFacts("dpm++/beta", package=_SCIPY, kijai={"dpm++/beta": ""}),
    SolverFacts("dpm++_sde/beta", package=_SCIPY, draws=True, kijai={"dpm++_sde/beta": ""}),
    SolverFacts("flowmatch_causvid", "is for CausVid's LoRA", kijai={"flowmatch_causvid": ""}),
    SolverFacts("kijai:euler", "and the like are that pack's own", kijai={"euler": ""}),
    SolverFacts("kijai:euler/beta", package=_SCIPY, kijai={"euler/beta": ""}),
    SolverFacts("kijai:unipc", package=_DIFFUSERS, kijai={"unipc": ""}),
    SolverFacts("kijai:unipc/beta", package=_SCIPY, kijai={"unipc/beta": ""}),
    SolverFacts("kijai:lcm", draws=True, kijai={"lcm": ""}),
    SolverFacts("kijai:lcm/beta", package=_SCIPY, draws=True, kijai={"lcm/beta": ""}),
    SolverFacts("kijai:res_multistep", kijai={"res_multistep": ""}),
    SolverFacts("comfy:euler", "and the like are those of ComfyUI's own nodes", comfy=("euler", "ddim")),
    SolverFacts("comfy:euler_ancestral", draws=True, comfy=("euler_ancestral",), on_device=True),
    SolverFacts("comfy:heun", comfy=("heun",)),
    SolverFacts("comfy:dpmpp_2m", comfy=("dpmpp_2m",)),
    SolverFacts(
        "comfy:dpmpp_sde", package=_TORCHSDE, draws=True, comfy=("dpmpp_sde",), by_seed=True, starts_below=True
    ),
    SolverFacts(
        "comfy:dpmpp_2m_sde", package=_TORCHSDE, draws=True, comfy=("dpmpp_2m_sde",), by_seed=True, starts_below=True
    ),
    SolverFacts(
        "comfy:dpmpp_3m_sde", package=_TORCHSDE, draws=True, comfy=("dpmpp_3m_sde",), by_seed=True, starts_below=True
    ),
    SolverFacts("comfy:lcm", draws=True, comfy=("lcm",), on_device=True),
    SolverFacts("comfy:ipndm", comfy=("ipndm",)),
    SolverFacts("comfy:res_multistep", comfy=("res_multistep",)),
    SolverFacts("comfy:res_multistep_ancestral", draws=True, comfy=("res_multistep_ancestral",), on_device=True),
    SolverFacts("comfy:gradient_estimation", comfy=("gradient_estimation",)),
    SolverFacts("comfy:er_sde", draws=True, comfy=("er_sde",), on_device=True, starts_below=True),
    SolverFacts("comfy:uni_pc", comfy=("uni_pc",), drops_last=True, least=2),
    SolverFacts("comfy:uni_pc_bh2", comfy=("uni_pc_bh2",), drops_last=True, least=2),
)
SOLVERS: Mapping[str, SolverFacts] = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class ScheduleFacts:
    """One way in which ComfyUI's own nodes space noise levels.

    Attributes:
        package, least: as of ``SolverFacts``.
    """

    name: str
    package: Package | None = None
    least: int = 1

    def makes(self, steps: int) -> int:
        """How many steps it makes of so many."""
        return len(range(1, 1000, max(1000 // steps, 1))) if self.name == "ddim_uniform" else steps

    def check(self) -> None:
        """Raises InputError: the package that it needs is missing."""
        if self.package is not None:
            self.package.require(f"--sample_schedule {self.name}", "--sample_schedule simple")


SCHEDULES: Mapping[str, ScheduleFacts] = {
    row.name: row
    for row in (
        ScheduleFacts("simple"),
        ScheduleFacts("sgm_uniform"),
        ScheduleFacts("karras"),
        ScheduleFacts("exponential"),
        ScheduleFacts("ddim_uniform"),
        ScheduleFacts("beta", package=_SCIPY),
        ScheduleFacts("normal"),
        ScheduleFacts("linear_quadratic"),
        ScheduleFacts("kl_optimal", least=2),
    )
}


def by_package() -> dict[Package, list[str]]:
    """The names of the solvers that need a package, by package."""
    found: dict[Package, list[str]] = {}
    for row in SOLVERS.values():
        if row.package is not None:
            found.setdefault(row.package, []).append(row.name)
    return found


def solvers_help() -> str:
    """One line about all of them."""
    told = [f"{row.name} {row.help}" for row in SOLVERS.values() if row.help]
    for package, needing in by_package().items():
        names = list(dict.fromkeys("*/beta" if name.endswith("/beta") else name for name in needing))
        told.append(f"{listed(names)} {'need' if len(names) > 1 else 'needs'} {package.name}")
    return "; ".join(told)


def steps_help() -> str:
    """The number of steps where none is set, in words."""
    return "".join([f"{USUAL_STEPS}", *(f", or {row.steps} with {row.name}" for row in SOLVERS.values() if row.steps)])
