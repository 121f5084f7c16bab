"""Audits of labels: predictions in; a ranking of suspicious labels, pages, reviews and comparisons out.

- :mod:`~mlfix_train.audit.audit`: the ``Audit`` object, from arrays or from runs.
- :mod:`~mlfix_train.audit.callback`: ``AuditCallback``, which audits a training's held-out samples.
- :mod:`~mlfix_train.audit.files`: the output directory of an audit, read back.
- :mod:`~mlfix_train.audit.judgements`: labels that a person judged, from a review or from one's own data.
- ``predictions/``: tables of predictions, averaged over runs; training dynamics.
- ``scores/``: scores of labels, their combination, estimates, rankings and slices.
- ``similarity/``: nearest neighbours, near-duplicates, visual order.
- ``comparison/``: did fixing help? Arms, effects and their intervals.
- ``reporting/``: panels, charts, pages, exports, experiment trackers.
- ``review/``: the page where people mark wrong labels.
"""
