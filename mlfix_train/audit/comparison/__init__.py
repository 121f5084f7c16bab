"""Did fixing the labels help? Trained models of two or three arms, compared on the same held-out samples.

An *arm* is a set of runs trained on the same labels: ``original`` (the given ones), ``fixed`` (with the fixes applied)
and, optionally, ``control`` (as many random samples of every label excluded as the fixes exclude). Read in this order:

- :mod:`.arms`: :func:`~mlfix_train.audit.comparison.arms.compare_arms`, the entry point, and its result.
- :mod:`.inputs`: run directories and prediction files become arms; checks that they belong together.
- :mod:`.study`: the arms' predictions aligned by sample, and which runs form pairs.
- :mod:`.slice_results`: errors and effects over one slice of the samples.
- :mod:`.effects`: an effect as arrays of contributions, and its variance over runs and samples.
- :mod:`.intervals`: the confidence interval of an effect.
- :mod:`.significance`: permutation tests, and how many runs would be needed to show an effect.
- :mod:`.label_changes`: the change of every single label, corrected for multiple testing.
- :mod:`.verdict`: what may be concluded, in a few fixed verdicts and in plain sentences.
"""
