"""A training script as any Lightning project has one. The audit is the three lines marked ``# audit``.

Three trainings hold out a third of the pictures each, so that every picture is predicted by a model that did not learn
its label. ``mlfix audit runs='lightning/fold-*'`` then ranks all of them.
"""

from __future__ import annotations

import lightning as L
import numpy as np
from icons.data import IconDataset, read_icons
from icons.model import IconNet
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from mlfix_train import AuditCallback  # audit


def main(folds: int = 3, epochs: int = 10) -> None:
    """Trains a model per fold."""
    table = read_icons("pictures")
    classes = sorted(table["label"].unique())
    fold_of = np.random.default_rng(0).permutation(len(table)) % folds
    for fold in range(folds):
        L.seed_everything(fold, verbose=False)
        train, val = table[fold_of != fold], table[fold_of == fold]
        folder, val_ids = f"lightning/fold-{fold}", list(val.index)
        audit = AuditCallback(folder, sample_ids=val_ids, class_names=classes, images=list(val["path"]))  # audit
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=CSVLogger("lightning", name=f"csv-{fold}", version=""),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
            callbacks=[audit],  # audit
        )
        trainer.fit(
            IconNet(classes),
            DataLoader(IconDataset(train, classes), 32, shuffle=True),
            DataLoader(IconDataset(val, classes), 100),
        )


if __name__ == "__main__":
    main()
