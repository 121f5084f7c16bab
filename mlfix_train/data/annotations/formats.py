"""The annotation formats, and which one a folder holds."""

from pathlib import Path

from mlfix_train.data.annotations.base import AnnotationFormat
from mlfix_train.data.annotations.coco import Coco
from mlfix_train.data.annotations.cvat import Cvat
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.annotations.voc import Voc
from mlfix_train.data.annotations.yolo import Yolo
from mlfix_train.data.readers.files import ARCHIVES, check_root
from mlfix_train.errors import DataError, format_list

FORMATS: dict[str, type[AnnotationFormat]] = {"mtsd": Mtsd, "coco": Coco, "yolo": Yolo, "voc": Voc, "cvat": Cvat}
"""Every format of this package; a new one needs its entry here and a preset ``configs/data/<name>.yaml``."""


def open_annotations(root: str | Path) -> AnnotationFormat:
    """Returns the data set that a folder holds, in whichever format it is; ``.read()`` reads it.

    Raises:
        DataError: no format fits, or several do.
    """
    folder = check_root(root, "set data.root to the folder with photos and annotations")
    formats = detect_formats(folder)
    if len(formats) == 1:
        return FORMATS[formats[0]](folder)
    archives = [path.name for path in sorted(folder.iterdir()) if path.name.lower().endswith(ARCHIVES)]
    if archives and not formats:
        raise DataError(f"no annotations below data.root={root}", f"unpack {format_list(archives, 3)} there")
    several = f"data.root={root} looks like {' and '.join(formats)}"
    hint = "name the format: data=mtsd (annotations/*.json and splits/), data=coco (instances JSON; data.file=), "
    hint += "data=yolo (data.yaml or classes.txt), data=voc (Annotations/*.xml) or data=cvat (annotations.xml)"
    raise DataError(several if formats else f"no annotations below data.root={root}", hint)


def detect_formats(root: Path) -> list[str]:
    """Returns the formats that a folder fits best; several if they fit equally well."""
    scores = {name: format_.detect(root) for name, format_ in FORMATS.items()}
    best = max(scores.values())
    return [name for name, score in scores.items() if score == best and best > 0]
