"""Cells: which are one run, what their folders are called, and what is said before any of them begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from halos.config.config import load_config
from halos.errors import UserError
from halos.sweep.cells import Cells
from halos.sweep.grid import asked
from tests.sweep.small import cells, tiny

PLUGIN = """
from dataclasses import dataclass
from halos import hookimpl

@dataclass
class Mine:
    weighs = False
    async def run(self, sim):
        pass

@hookimpl
def register_sync_policies(register):
    register("mine", Mine)
"""


def test_a_folder_is_named_after_labels_and_configuration(tmp_path: Path) -> None:
    arguments = ("policy.outer.lr=1,0.5", "train.optimizer.lr=1e-3,1e15", "data.samples=64,128")
    found = cells(tiny(tmp_path), *arguments, out=Path("here"))
    assert found[0].folder.parent == Path("here")
    name, _, digest = found[3].folder.name.rpartition("-")
    assert name == "outer.lr=1,optimizer.lr=1e+15,samples=128" == found[3].config.name
    assert digest == found[3].digest and len(digest) == 8
    assert len({cell.digest for cell in found}) == 8


def test_names_hold_nothing_that_a_shell_or_a_disk_minds(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"a/b $(c): seed=1\n{'y' * 300}: seed=2\n: seed=3".replace("\n:", "\n*:"))
    found = Cells(tmp_path).made(asked([tiny(tmp_path)], (), tmp_path / "list").cells())
    assert [cell.config.name for cell in found] == ["cell=a-b-c", f"cell={'y' * 32}", "cell=-"]


def digest(config: str, *arguments: str) -> str:
    """That of a sweep's only cell."""
    (cell,) = cells(config, *arguments, out=Path("here"))
    return cell.digest


@pytest.mark.parametrize(
    "change",
    ["labels.a=b", "observers.trace=true", "checkpoint.every_minutes=3", "executor.threads=2", "executor.device=cpu"],
)
def test_what_may_change_when_a_run_goes_on_makes_no_other_run(change: str, tmp_path: Path) -> None:
    config = tiny(tmp_path)
    assert digest(config, change) == digest(config)


@pytest.mark.parametrize("change", ["seed=1", "budget.local_steps=16", "policy.outer.lr=0.9", "codec=fp16"])
def test_everything_else_does(change: str, tmp_path: Path) -> None:
    config = tiny(tmp_path)
    assert digest(config, change) != digest(config)


def test_so_does_the_source_of_a_plugin_that_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    config = tiny(tmp_path, policy={"name": "mine"}, plugins=[str(tmp_path / "mine.py")])
    before = digest(config)
    (tmp_path / "mine.py").write_text(PLUGIN + "# better\n")
    assert digest(config) != before


def test_a_cell_is_the_run_of_its_own_command_line(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    (_, cell) = cells(config, "seed=3,4", "train.clip=2.0", out=Path("here"))
    own, _ = load_config(config, ["seed=4", "train.clip=2.0", "labels.seed=4"])
    assert dataclasses.replace(cell.config, name=own.name, out=None) == own


def test_two_cells_that_are_one_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^two cells are the same run: codec fp32; and codec \{name: fp32\}$"):
        cells(tiny(tmp_path), "codec=fp32,{name: fp32}", out=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=1,x"], "seed: 'x' is not an integer (in the cell seed x)"),
        (["policy=diloco,mine", "weights=uniform,by_worker"], "weights: 'by_worker' has no part in policy mine"),
        (["cluster.regions=[{workers: [1]}],[]"], "cluster.regions: empty"),
        (["network.bandwidth_gbps=1,[[1, 2]]"], "network.bandwidth_gbps: has shape 1 x 2"),
    ],
)
def test_what_is_wrong_with_any_cell_is_said_before_the_first_begins(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    with pytest.raises(UserError) as caught:
        Cells(tmp_path, plugins=[str(tmp_path / "mine.py")]).made(asked([tiny(tmp_path)], arguments).cells())
    assert str(caught.value).startswith(said) and "(in the cell " in str(caught.value)


def test_timed_cells_train_nothing_and_keep_only_what_is_asked_of_them(tmp_path: Path) -> None:
    (cell, _) = Cells(tmp_path).made(asked([tiny(tmp_path)], ["seed=1,2"]).cells(), timed=True)
    assert type(cell.config.executor).__name__ == "Timing"
    assert not cell.config.observers.tensorboard and not cell.config.observers.trace


def test_who_only_watches_makes_no_other_run_of_a_cell(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(
        "from dataclasses import dataclass\nfrom halos import hookimpl\n\n\n"
        "@dataclass\nclass Watch:\n    often: int = 1\n\n    @hookimpl\n    def on_commit(self, commit): ...\n\n\n"
        "@hookimpl\ndef register_observers(register):\n    register('watch', Watch)\n"
    )
    config, plugin = tiny(tmp_path), [str(tmp_path / "watch.py")]
    (alone,) = Cells(tmp_path).made(asked([config], ["seed=1..1"]).cells())
    watched = ["seed=1..1", "observers.extra.watch.often=3"]
    (seen,) = Cells(tmp_path, plugins=plugin).made(asked([config], watched).cells())
    assert list(seen.config.observers.extra) == ["watch"]
    assert seen.digest == alone.digest
