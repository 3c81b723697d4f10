"""Configurations that earlier versions resolved and wrote down, brought up to date: no recorded run is lost."""

from __future__ import annotations

from halos.config.yaml_text import Section

WRITTEN_OUT = ("name", "out", "seed", "plugins", "evaluate", "record")  # by every version; by hand hardly ever all
OF_ANOTHER = {"adamw": ("momentum",), "sgd": ("betas", "eps")}  # keys that stood beside an optimizer and did nothing


def up_to_date(section: Section) -> Section:
    """Change `section`, if an earlier version wrote it, to what this one writes of the same run; and return it.

    A section that somebody wrote by hand stays as it is, so that what is wrong in it is told.
    """
    if "aggregate" in section or not all(key in section for key in WRITTEN_OUT):
        return section
    section["aggregate"] = {"name": "mean"}
    train = section.get("train")
    if isinstance(train, dict):
        train.setdefault("optimizer_state", "kept")
        optimizer, schedule = train.get("optimizer"), train.get("schedule")
        if isinstance(optimizer, dict):  # it was written with the keys of all optimizers
            for key in OF_ANOTHER.get(str(optimizer.get("name")), ()):
                optimizer.pop(key, None)
        if isinstance(schedule, dict):
            schedule.setdefault("decay", None)
    return section
