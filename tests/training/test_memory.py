"""Out of memory: the error names the key and a batch size that fits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from shapes import FAST

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.models import compile as compiling
from mlfix_train.training.memory import explain_out_of_memory


def test_out_of_memory_names_the_key_and_the_batch_that_fits(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlfix_train.models.backbones.network import Network

    real = Network.forward

    def short(self: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(self, images)

    monkeypatch.setattr(Network, "forward", short)
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST)
    assert answer.code == 1
    assert "loader.batch_size=16: CUDA out of memory" in answer.err
    assert "loader.batch_size=4 fits" in answer.err
    assert RunDirectory(tmp_path / "default/original/seed=0").status == "failed"
    for error in (ValueError("another"), RuntimeError("another")):
        with pytest.raises(type(error), match="another"), explain_out_of_memory(None, None, None):
            raise error


@pytest.mark.parametrize(
    "message", ["DefaultCPUAllocator: can't allocate memory: you tried", "not enough memory: you tried"]
)
def test_a_cpu_out_of_memory_gets_the_same_advice(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple] = []
    monkeypatch.setattr(compiling, "largest_batch", lambda *a: searched.append(a[1:]) or 0)
    sizes = SimpleNamespace(loader=SimpleNamespace(batch_size=8, eval_batch_size=16), pixels=SimpleNamespace(size=40))
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    fit = SimpleNamespace(strategy=strategy, optimizers=[], validating=False)
    with pytest.raises(RunError, match="not even two samples fit"), explain_out_of_memory(fit, None, sizes, 2):
        raise RuntimeError(message)
    assert searched == [(torch.device("cpu"), 40, 8, 2)]
    fit.validating = True
    with pytest.raises(RunError, match=r"loader\.eval_batch_size=16"), explain_out_of_memory(fit, None, sizes):
        raise torch.OutOfMemoryError("no")
