"""Judge few values by a moderated variance: each is weighed with those of the other backends of the group. Pure.

Three or four blocks alone hardly show a variance: Student's interval of three values at 99 % is ten standard errors
wide. The variances of several backends in the same blocks show how large such variances are (Smyth, Linear Models and
Empirical Bayes Methods, Statistical Applications in Genetics and Molecular Biology 3, 2004). The weighed variance is
never taken below a backend's own: timings have outliers, and a backend that has more of them than others is no surer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.timing.intervals import FEWEST_VALUES, LEVEL, Interval

#: Fewest samples with a prior for their intervals: the variances of two or three hardly show it.
FEWEST_SAMPLES: Final = 4
#: Fewest values of which outliers are moved: among fewer no one is known for an outlier.
OUTLIER_VALUES: Final = 10
#: Values that are farther from the median than this many standard deviations are moved to that distance.
OUTLIER_DEVIATIONS: Final = 3.0
#: Third quartile of the absolute deviations of normal values, in standard deviations. The median would not do: of two
#: speeds that alternate, the rarer one would be moved as if it were an outlier.
_THIRD_QUARTILE: Final = 1.1503
#: Steps of Newton's method; it converges quadratically from a start that is close.
_NEWTON_STEPS: Final = 8

Values = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Prior:
    """The distribution that the variances of a group's backends come from.

    Attributes:
        freedom: Degrees of freedom: the number of values that the prior counts for.
        variance: Variance that it centres on.
    """

    freedom: float
    variance: float


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """How much slower a backend is than the best one.

    Attributes:
        mean: Mean of the log-ratios.
        error: Its standard error, from the moderated variance.
        freedom: Degrees of freedom of that variance.
        among: Number of backends that are compared with the best one.
    """

    mean: float
    error: float
    freedom: float
    among: int

    def exceeds(self, margin: float, chance: float) -> bool:
        """True if the backend is shown to be slower by more than a margin.

        Args:
            margin: The margin, as a log-ratio.
            chance: Largest chance that this is said of any of the ``among`` backends that are no slower.
        """
        from scipy import special  # not at the top: a check does without

        return bool(self.mean - margin > special.stdtrit(self.freedom, 1 - chance / self.among) * self.error)


def prior(samples: Sequence[Sequence[float]]) -> Prior | None:
    """Return the prior of the variances of samples; None if fewer than ``FEWEST_SAMPLES`` have ``FEWEST_VALUES``.

    Args:
        samples: Log-ratios of each backend, one a block or a process.
    """
    arrays = [np.asarray(values, dtype=float) for values in samples if len(values) >= FEWEST_VALUES]
    if len(arrays) < FEWEST_SAMPLES:
        return None
    return _prior(*_variances(arrays))


def interval(values: Sequence[float], shared: Prior, level: float = LEVEL) -> Interval:
    """Return the mean with Student's interval from the moderated variance.

    Args:
        values: Independent values, one or more; with fewer than ``FEWEST_VALUES`` there is no interval.
        shared: Prior of the group that the values belong to.
        level: Confidence level, between 0 and 1.
    """
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < FEWEST_VALUES:
        return Interval(mean, None, None)
    from scipy import special

    variances, freedom = _variances([array])
    (error,) = np.sqrt(_moderated(variances, freedom, shared) / len(array))
    half = float(special.stdtrit(shared.freedom + freedom[0], (1 + level) / 2) * error)
    return Interval(mean, mean - half, mean + half)


def differences(samples: Sequence[Sequence[float]]) -> list[Difference | None]:
    """Return how much slower several backends are than the best one; None for fewer values than ``FEWEST_VALUES``.

    Args:
        samples: Log-times less those of the best backend, one value a block or a process, for each other backend.
    """
    enough = [index for index, values in enumerate(samples) if len(values) >= FEWEST_VALUES]
    found: list[Difference | None] = [None] * len(samples)
    if not enough:
        return found
    arrays = _without_outliers([np.asarray(samples[index], dtype=float) for index in enough])
    variances, freedom = _variances(arrays)
    shared = _prior(variances, freedom) if len(arrays) > 1 else Prior(0.0, float(variances[0]))
    errors = np.sqrt(_moderated(variances, freedom, shared) / (freedom + 1))
    for index, values, error, own in zip(enough, arrays, errors, freedom, strict=True):
        found[index] = Difference(float(values.mean()), float(error), shared.freedom + float(own), len(samples))
    return found


def _variances(arrays: Sequence[Values]) -> tuple[Values, Values]:
    """Return the variance of each sample, and its degrees of freedom."""
    return np.array([values.var(ddof=1) for values in arrays]), np.array([len(values) - 1.0 for values in arrays])


def _moderated(variances: Values, freedom: Values, shared: Prior) -> Values:
    """Return each variance weighed with the prior, and at least itself."""
    weighed = (shared.freedom * shared.variance + freedom * variances) / (shared.freedom + freedom)
    return np.maximum(weighed, variances)


def _without_outliers(arrays: Sequence[Values]) -> list[Values]:
    """Return samples whose outliers are moved; the scale is a sample's own, or the median one if that is larger."""
    medians = [float(np.median(values)) for values in arrays]
    scales = [_scale(values - median) for values, median in zip(arrays, medians, strict=True)]
    usual = float(np.median(scales))
    moved = []
    for values, median, scale in zip(arrays, medians, scales, strict=True):
        limit = OUTLIER_DEVIATIONS * max(scale, usual)
        few = len(values) < OUTLIER_VALUES
        moved.append(values if few else np.clip(values, median - limit, median + limit))
    return moved


def _scale(deviations: Values) -> float:
    """Return a standard deviation that outliers hardly move."""
    return float(np.quantile(np.abs(deviations), 0.75)) / _THIRD_QUARTILE


def _prior(variances: Values, freedom: Values) -> Prior:
    """Return the prior of two variances or more (Smyth, section 6.2)."""
    from scipy import special

    # A clock of few digits may give equal values, whose variance of 0 has no logarithm.
    variances = np.maximum(variances, 1e-6 * np.median(variances) + 1e-30)
    logs = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    spread = float(logs.var(ddof=1) - special.polygamma(1, freedom / 2).mean())
    # All ratios share the noise of one backend, the best one or the baseline. So the variances of n ratios tell less
    # than n of them would: simulated intervals hold their level with at most this many degrees of freedom.
    most = (len(variances) - 1) / (len(variances) + 1) * float(np.median(freedom))
    shared = most if spread <= special.polygamma(1, most / 2) else 2 * _inverse_trigamma(spread)
    centre = float(logs.mean() + special.digamma(shared / 2)) - math.log(shared / 2)
    return Prior(shared, math.exp(centre))


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value, by Newton's method on 1 / trigamma, which is convex (Smyth, appendix)."""
    from scipy import special

    x = 0.5 + 1 / value
    for _ in range(_NEWTON_STEPS):
        trigamma = float(special.polygamma(1, x))
        x += trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
    return x
