"""Exact statistics of decisions: image by image the same test set, so that differences are paired."""

from dataclasses import dataclass

CONFIDENCE = 0.95


def exact_interval(hits: int, images: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper and Pearson (1934): covers at least `confidence`, also close to 0 and 100 %, where the normal one fails."""
    from scipy.stats import binomtest

    interval = binomtest(hits, images).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same images. `lost`: only the reference is right; `gained`: only the other one is."""

    images: int
    lost: int
    gained: int

    @property
    def difference(self) -> float:
        """Accuracy of the other one minus the reference's, as a share of 1."""
        return (self.gained - self.lost) / self.images

    @property
    def p_value(self) -> float:
        """McNemar's exact test (1947): how likely a split as uneven as this is, if neither is better."""
        from scipy.stats import binomtest

        discordant = self.lost + self.gained
        return float(binomtest(self.lost, discordant).pvalue) if discordant else 1.0

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Of the difference, as shares of 1; covers at least `confidence`.

        Both shares lie in their own Clopper-Pearson intervals of half the risk (Bonferroni), so the difference lies between
        their extremes. It does not shrink to a point where nothing was lost or gained: 10,000 images cannot show that.
        """
        each = 1 - (1 - confidence) / 2
        (lost_low, lost_high), (gained_low, gained_high) = (exact_interval(n, self.images, each) for n in (self.lost, self.gained))
        return gained_low - lost_high, gained_high - lost_low
