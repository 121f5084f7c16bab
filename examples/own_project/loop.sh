#!/usr/bin/env bash
# The whole loop by commands, with the parts of this project: one to two minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")"
mlfix() { "${PYTHON:-python}" -m mlfix_train.cli.main "$@"; }   # or the installed command `mlfix`

[ -f truth.csv ] || "${PYTHON:-python}" draw_images.py

# 1. Three runs hold out a third of the pictures each.
mlfix train -m --config-dir conf experiment=icons sweep=out_of_fold split.folds=3 name=folds

# 2. What looks alike lies side by side: the order, and the neighbours that the audit asks.
mlfix sort --config-dir conf data=icons embedder._target_=icons.embedder.BrightnessMap n_panels=1 out=order

# 3. Which labels are likely wrong: by these runs, and by the predictions of train_with_lightning.py.
mlfix audit runs=outputs/folds order=order scores.ink._target_=icons.score.ink_oddity n_panels=2 logger=none out=audit
if [ -d lightning ]; then
    mlfix audit --config-dir conf runs='lightning/fold-*' data=icons \
        scores.ink._target_=icons.score.ink_oddity n_panels=2 logger=none out=audit-lightning
fi

# 4. Somebody looks at the first 50; `mlfix review audit=audit` is the page for that.
"${PYTHON:-python}" pick_fixes.py audit/ranking.csv 50 fixes.csv

# 5. Before and after, two seeds of each arm, and what fixing bought. These fixes exclude nothing, so there is no control.
mlfix train -m --config-dir conf experiment=icons sweep=before_after arm=original,fixed seed=0,1 fixes.path=fixes.csv \
    name=study
mlfix compare original=outputs/study/original fixed=outputs/study/fixed fixes.path=fixes.csv resamples=2000 \
    logger=none out=comparison
