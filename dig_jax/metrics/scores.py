"""A score: what is measured, of what images, and its value."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Score:
    """One score of a set of images.

    Attributes:
        family: What is measured, as in fid, precision or frechet_pixels.
        value: Of the images.
        num_images: How many they are.
        domain: Data set whose own classifier the features are of; "" for those of
            Inception, and for pixels.
        of: What is compared. Most scores of features depend on the number of images,
            so their names carry it.
        std: Standard deviation over subsets, splits or draws, where it has some.
        real: The same score of real test images.
        real_std: Its standard deviation over draws of them.
        num_real: How many it is of.
    """

    family: str
    value: float
    num_images: int
    domain: str = ""
    of: Literal["features", "pixels"] = "features"
    std: float | None = None
    real: float | None = None
    real_std: float | None = None
    num_real: int | None = None

    @property
    def kind(self) -> str:
        """What compares, at equal numbers of images: fid, fd_digits."""
        return f"{self.family}_{self.domain}" if self.domain else self.family

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the other scores of a set of images."""
        return self.family, self.domain, self.num_images

    @property
    def name(self) -> str:
        """As tables and JSON call it: fid50k, fd_cifar10_1k, copied_share."""
        if self.of == "pixels":
            return self.kind
        between = "_" if self.kind[-1:].isdigit() else ""
        return f"{self.kind}{between}{format_count(self.num_images)}"

    def to_json(self) -> dict[str, float]:
        """What is known of it, beside its name."""
        entry = {
            "value": self.value,
            "num_images": self.num_images,
            "std": self.std,
            "real": self.real,
            "real_std": self.real_std,
            "num_real": self.num_real,
        }
        return {key: value for key, value in entry.items() if value is not None}


def format_count(count: int) -> str:
    """A number of images as names of scores carry it: 1000 is 1k, 1500 is 1500."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)
