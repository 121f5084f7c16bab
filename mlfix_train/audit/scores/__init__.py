"""Scores of given labels, and what follows from them: one ranking, an estimate of the wrong labels, slices.

- :mod:`~mlfix_train.audit.scores.registry`: **all scores; add a new one here**. The columns of a ranking follow.
- :mod:`~mlfix_train.audit.scores.label_scores`: cleanlab's scores and confident learning, on arrays of probabilities.
- :mod:`~mlfix_train.audit.scores.knn`: votes of nearest neighbours.
- :mod:`~mlfix_train.audit.scores.suspicion`: several scores combined into the probability that a label is wrong.
- :mod:`~mlfix_train.audit.scores.estimates`: how many labels are wrong, and how far down the ranking to review.
- :mod:`~mlfix_train.audit.scores.calibration`: the same from labels that a person judged.
- :mod:`~mlfix_train.audit.scores.ranking`: the ranking, the result of all of these.
- :mod:`~mlfix_train.audit.scores.slices`: slices of a ranking, to be reviewed together.
"""
