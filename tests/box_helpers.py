"""What tests of annotations share."""

from __future__ import annotations

from pathlib import Path

from mlfix_train.data.annotations.base import Annotations

SMALL_PNG = ("format=png", "size=16")
ONE = [("stop", (10, 10, 40, 40))]


def pixels(found: Annotations) -> list[tuple]:
    """The boxes as (photo, label, split, x, y, x, y) in whole pixels."""
    table = found.boxes
    if found.normalized:
        sizes = {
            name: (320 + 16 * int(name.removeprefix("photo").rpartition("photo")[2]), 200) for name in table["photo"]
        }
        for side, columns in enumerate((("x_min", "x_max"), ("y_min", "y_max"))):
            for column in columns:
                table[column] = table[column] * [sizes[name][side] for name in table["photo"]]
    return sorted(
        (
            row.photo.rpartition("/")[2],
            row.label,
            found.photos.at[row.photo, "split"],
            *(round(getattr(row, edge), 3) for edge in ("x_min", "y_min", "x_max", "y_max")),
        )
        for row in table.itertuples()
    )


def write_fixes_file(path: Path, new: dict[str, str]) -> str:
    """Writes a fixes file and returns its override."""
    path.write_text("sample_id,new_label\n" + "".join(f'"{sample}",{label}\n' for sample, label in new.items()))
    return f"fixes.path={path}"
