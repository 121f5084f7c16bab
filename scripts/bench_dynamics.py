"""What gathering the area under the margin costs: its share of the time of training steps.

    python scripts/bench_dynamics.py

Times the meter and the step (forward, loss, backward, update) apart in one run, on random pictures of 40 px with 401
labels, at batch 128: the small network and ResNet50.
"""

from __future__ import annotations

import time

import torch

from mlfix_train.audit.predictions.dynamics import MarginMeter
from mlfix_train.models.backbones.network import Network


def main() -> None:
    """Prints a line for each network."""
    torch.manual_seed(0)
    for backbone, steps in (("mlfix_small", 40), ("resnet50", 8)):
        network = Network(backbone, 401, "linear", False, None, None, True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        meter, spent, whole = MarginMeter(200_000), 0.0, 0.0
        for step in range(steps):
            images, labels = torch.randn(128, 3, 40, 40), torch.randint(401, (128,))
            index = torch.randint(200_000, (128,))
            started = time.perf_counter()
            logits = network(images)
            torch.nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            middle = time.perf_counter()
            meter.add(logits.detach(), labels, index)
            if step >= steps // 4:
                spent += time.perf_counter() - middle
                whole += time.perf_counter() - started
        milliseconds = 1000 * whole / (steps - steps // 4)
        print(f"{backbone:12s} {milliseconds:8.1f} ms a step, margins {100 * spent / whole:.3f}% of it")


if __name__ == "__main__":
    main()
