"""A policy of independent choices that learns from rewards: REINFORCE with a baseline.

Reference:
    Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", Machine
    Learning 8, 1992; used to map pruning schemes to layers by Gong et al., arXiv:2111.11581.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Logits = list[npt.NDArray[np.float64]]

# Of how many rewards, about, the baseline is the mean; and the largest advantage, in standard deviations.
_MEMORY, _LARGEST = 10, 3.0


class Policy:
    """Chooses each action by probabilities of its own, the softmax of logits.

    Args:
        logits: of each choice, one an action.
        rate: step along the gradient, for an advantage of one standard deviation of the rewards.

    Example:
        >>> import numpy as np
        >>> policy = Policy([np.zeros(2)])
        >>> for reward in (0.0, 1.0, 0.0, 1.0):
        ...     policy.learn([int(reward)], reward)
        >>> bool(policy.probabilities(0)[1] > 0.5)
        True
    """

    def __init__(self, logits: Sequence[npt.ArrayLike], rate: float = 0.5) -> None:
        self.logits: Logits = [np.array(own, np.float64) for own in logits]
        self.rate = rate
        self._rewards: list[float] = []

    def probabilities(self, choice: int) -> npt.NDArray[np.float64]:
        """Return the probability of each action of a choice."""
        powers = np.exp(self.logits[choice] - self.logits[choice].max())
        return np.asarray(powers / powers.sum())

    def sample(self, rng: np.random.Generator) -> list[int]:
        """Draw an action for each choice."""
        return [int(rng.choice(len(own), p=self.probabilities(i))) for i, own in enumerate(self.logits)]

    def log_probability(self, actions: Sequence[int]) -> float:
        """Return the logarithm of the probability of drawing these actions."""
        return float(sum(np.log(self.probabilities(i)[action]) for i, action in enumerate(actions)))

    def gradient(self, actions: Sequence[int]) -> Logits:
        """Return the derivative of :meth:`log_probability` by the logits."""
        return [
            np.eye(len(own))[a] - self.probabilities(i)
            for i, (own, a) in enumerate(zip(self.logits, actions, strict=True))
        ]

    def observe(self, reward: float) -> float:
        """Note a reward; return its advantage over the mean of those before, in their standard deviations."""
        before = self._rewards[:]
        self._rewards.append(reward)
        if not before:
            return 0.0
        weights = (1.0 - 1.0 / _MEMORY) ** np.arange(len(before))[::-1]
        baseline = float(np.average(before, weights=weights))
        spread = float(np.std(self._rewards))
        return float(np.clip((reward - baseline) / spread, -_LARGEST, _LARGEST)) if spread > 0.0 else 0.0

    def learn(self, actions: Sequence[int], reward: float) -> None:
        """Make actions more likely by how much their reward exceeds the baseline, or less likely."""
        advantage = self.observe(reward)
        for logits, slope in zip(self.logits, self.gradient(actions), strict=True):
            logits += self.rate * advantage * slope
