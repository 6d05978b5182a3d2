"""TeaCache: steps whose timestep modulation hardly changed reuse what the blocks added last time.

Liu et al. 2024, arXiv 2411.19108; coefficients and rule as upstream (wan/modules/multitalk_model.py).
The decision depends on the timestep alone, so one decision serves all guidance branches of a step,
each of which keeps its own residual. It never skips one of the first five steps.
"""

from __future__ import annotations

import numpy as np
import torch

RET_STEPS = 5

# Fourth-order polynomials, highest power first, from relative change of the modulation to
# relative change of the output; fitted at the two training resolutions.
COEFFICIENTS_480 = (2.57151496e05, -3.54229917e04, 1.40286849e03, -1.35890334e01, 1.32517977e-01)
COEFFICIENTS_720 = (8.10705460e03, 2.13393892e03, -3.72934672e02, 1.66203073e01, -4.17769401e-02)


class TeaCache:
    """State for one window.

    Args:
        threshold: estimated change that is let pass before the blocks run again, 0 and up.
        coefficients: ``COEFFICIENTS_480`` or ``COEFFICIENTS_720``.
    """

    def __init__(self, threshold: float, coefficients: tuple[float, ...]) -> None:
        self.residuals: list[torch.Tensor] = []
        self._threshold = threshold
        self._polynomial = np.poly1d(coefficients)
        self._step = 0
        self._accumulated = 0.0
        self._previous: torch.Tensor | None = None

    def must_compute(self, modulation: torch.Tensor) -> bool:
        """Whether the blocks must run at this step. Call once a step, with the [1, 6, dim] modulation."""
        compute = True
        if self._step >= RET_STEPS and self._previous is not None:
            change = (modulation - self._previous).abs().mean() / self._previous.abs().mean()
            self._accumulated += float(self._polynomial(change.item()))
            compute = self._accumulated >= self._threshold
        if compute:
            self._accumulated = 0.0
        self._previous = modulation
        self._step += 1
        return compute
