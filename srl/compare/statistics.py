"""Mean and interval over seeds. Student's t, as seeds are few; one seed has no interval."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # 97.5 % points, 1 to 10 degrees
_Z = 1.959964


def t_quantile(degrees: int) -> float:
    """The 97.5 % point of Student's t; above 10 degrees of freedom by the expansion in 1 / degrees.

    >>> t_quantile(4), round(t_quantile(30), 3), round(t_quantile(1000), 3)
    (2.776, 2.042, 1.962)
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom: at least 1 is needed")
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = _Z
    first = (z**3 + z) / (4 * degrees)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    return z + first + second + third


@dataclass(frozen=True)
class Estimate:
    """values: one a seed. half: half the width of the 95 % interval of the mean; None for a single value."""

    mean: float
    half: float | None
    values: tuple[float, ...]

    def plain(self) -> dict[str, Any]:
        return {"mean": self.mean, "half": self.half, "values": list(self.values)}

    def text(self, digits: int = 3) -> str:
        """`mean ± half`, or the value alone.

        >>> estimate([0.5, 0.7]).text(), estimate([0.5]).text()
        ('0.600 ± 1.271', '0.500')
        """
        return f"{self.mean:.{digits}f}" + ("" if self.half is None else f" ± {self.half:.{digits}f}")


def estimate(values: list[float]) -> Estimate:
    """Mean and half of the 95 % interval over the values.

    >>> estimate([0.5, 0.7]).half  # standard error 0.1 at one degree of freedom
    1.2706
    """
    half = None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
        half = round(t_quantile(len(values) - 1) * error, 6)
    return Estimate(statistics.fmean(values), half, tuple(values))
