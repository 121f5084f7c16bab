"""Keys of ``mlfix demo``."""

from dataclasses import dataclass

from mlfix_train.errors import check_range


@dataclass
class DemoConfig:
    """Runs the whole loop on rendered signs with planted label errors.

    Args:
        out: Output folder for everything.
        per_class: Images of each of the 22 classes.
        planted: Share of the speed-limit images that get a wrong label, 0.01 to 0.5.
        budget: Number of samples that the simulated reviewer checks, from the top of the ranking.
        seeds: Number of runs of each arm.
        folds: Number of runs for the audit; each holds out one fold.
        epochs: Epochs of each run.
        difficulty: Difficulty of the images (blur, noise, haze, occlusion), 0 to 2; data=signs uses 1.
        control: Also train the control arm.
        seed: Seed of the images and of the planted errors.
    """

    out: str = "demo"
    per_class: int = 110
    planted: float = 0.15
    budget: int = 250
    seeds: int = 6
    folds: int = 3
    epochs: int = 12
    difficulty: float = 0.6
    control: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("per_class", self.per_class, 1, 100_000)
        check_range("planted", self.planted, 0.01, 0.5)
        check_range("budget", self.budget, 1, 10**6)
        check_range("seeds", self.seeds, 1, 1000)
        check_range("folds", self.folds, 2, 20)
        check_range("epochs", self.epochs, 1, 10**4)
        check_range("difficulty", self.difficulty, 0, 2)
        check_range("seed", self.seed, 0, 2**31)
