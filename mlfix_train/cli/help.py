"""What ``mlfix --help`` and ``mlfix <command> --help`` print."""

from mlfix_train import COMMANDS, __version__

SUMMARIES = {
    "crop": "crop boxes from photos (MTSD, COCO, YOLO, VOC, CVAT) into a data set of samples",
    "train": "train a classifier or the sorting network; -m sweeps over seeds and arms",
    "sort": "sort images so that similar ones are side by side; find near-duplicates",
    "audit": "rank labels by how likely they are wrong: estimates, panels, a report page",
    "review": "open the page where wrong labels are marked; writes fixes.csv",
    "plan": "how many seeds, samples and hours an effect takes to be shown, from a pilot of two or three seeds",
    "compare": "compare models before and after, with evaluation and training effects kept apart",
    "rerun": "repeat a study from the card that compare writes, with your copy of the data",
    "export": "write fixes back, a fixed copy of the data, or an audit for other tools",
    "demo": "run the whole loop on rendered signs with planted label errors",
}

HELP = """mlfix {version}: find wrong labels in image data, fix them, and measure the gain.

  mlfix sort data.root=photos                      photos/<label>/<image>, or unsorted images; see sort/panels
  mlfix train data.root=photos                     train a baseline
  mlfix audit runs=outputs/default out=audit       rank the most suspicious labels
  mlfix review audit=audit                         mark wrong ones on a page: review/fixes.csv
  mlfix train data.root=photos fixes.path=review/fixes.csv arm=fixed
  mlfix compare original=outputs/default/original fixed=outputs/default/fixed fixes.path=review/fixes.csv

Commands
{commands}

mlfix <command> --help lists its keys. Set keys as key=value; -m sweeps over several values: seed=range(0,20)
"""


def help_text() -> str:
    """Returns what ``mlfix --help`` prints."""
    commands = "\n".join(f"  {command:<9}{SUMMARIES[command]}" for command in COMMANDS)
    return HELP.format(version=__version__, commands=commands)


def command_help(command: str) -> str:
    """Returns what ``mlfix <command> --help`` prints."""
    from mlfix_train.config.help import describe_keys

    return f"mlfix {command}: {SUMMARIES[command]}\n\n{describe_keys(command)}"
