"""Training: one run from data to predictions, and many runs as a sweep.

* ``run``: fits one run in its run directory, skips a finished one, resumes an interrupted one.
* ``tasks``: what differs between the classifier and the sorting network.
* ``identity``: which settings make two runs the same run.
* ``trainer``: a ``lightning.Trainer`` from a dict of its arguments.
* ``loggers``, ``progress``, ``checkpoints``, ``memory``: what surrounds the Trainer.
* ``sweep``: many runs and what became of each; ``launchers`` start them.

Nothing is imported here: the launchers and the table of a sweep work without torch.
"""
