"""Whatever a config, a file or a command line holds: a run, or one line that names the key."""

from __future__ import annotations

import copy
import dataclasses
import io
import logging
import os
import sys
import tempfile
import typing
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, Union

from hypothesis import given
from hypothesis import strategies as st

from halos import Update, hookimpl
from halos.config.builder import Builder
from halos.config.config import Config, resolve
from halos.config.layers import DEFAULTS, merge
from halos.config.sections import to_sections
from halos.config.yaml_text import Section, to_yaml
from halos.errors import ConfigError
from halos.observers.experiment import Experiment
from halos.plugins.registry import KINDS, Plugins
from halos.run.cli import main
from halos.testing import TINY
from tests.outcome import bounded, examples

ROOT = Path(__file__).parents[2]
PLUGINS = [*sorted(folder.name.replace("-", "_") for folder in ROOT.glob("plugins/halos-*")), "noloco_gossip"]
PATIENCE = 200  # updates after which a run that goes on is interrupted, as by Ctrl-C

# Three workers in two regions, a model that is only a size, timed: every kind of component can be put into it.
SMALL: Section = {
    "cluster": {"regions": [{"workers": [1.0, 0.5]}, {"workers": [1.0]}], "tie_break_ms": 0.5},
    "network": {"bandwidth_gbps": [[1.0, 0.5], [0.5, 1.0]], "latency_ms": 1.0},
    "model": {"name": "sized", "parameters": 1000},
    "executor": {"name": "timing"},
    "budget": {"local_steps": 24},
    "observers": {"progress": False, "tensorboard": False},
}
# What has no default, or none that fits into that.
CHOSEN: dict[str, Section] = {
    "gpt_neox": {"hidden_size": 8, "layers": 2, "heads": 2},
    "halos": {"local_updates": 2},
    "matrix": {"bandwidth_gbps": 1.0},
    "shared_links": {
        "inside_gbps": 1.0,
        "backbone": [{"name": "cable", "gbps": 1.0, "ways": [[0, 1]]}],
        "background": [{"link": "cable", "gbps": 0.1, "share": 0.1, "at_seconds": 0.0, "seconds": 1.0}],
        "changes": [{"time_s": 1.0, "link": "cable", "gbps": 1.0}],
    },
    "streaming_diloco": {"fragments": 2, "pattern": "balanced", "offsets": [0, 1], "tau": [1, 1, 0]},
    "decoupled_diloco": {"fragments": 1},
    "buffered": {"buffer": 2},
    "low_rank": {"rank": 1},
    "dilocox": {"codec": {"name": "int4"}},
    "krum": {"f": 0},
    "multi_krum": {"f": 0},
}
SIMPLEST = {"merge rule": "sgd", "codec": "fp16", "compute model": "constant", "fault model": "message_loss"}


@dataclasses.dataclass(frozen=True)
class End:
    """How a command ended: exit code, output, and what is there that was not."""

    code: int
    out: str
    err: str
    made: frozenset[str]

    @property
    def well(self) -> bool:
        """A run, finished or stopped with one line about it; or a mistake's one line, and nothing else."""
        last = self.err.splitlines()[-1] if self.err else ""
        if self.code == 2:
            return last.startswith("error: ") and self.err == last + "\n" and not self.out and not self.made
        stuck = "stuck" in last and "nothing gets through" not in last  # a link may have no bandwidth for ever
        stopped = (self.code, last[:9]) in ((1, "stopped: "), (130, "interrupt")) and not stuck
        return self.code == 0 or stopped  # in the first case its progress may be on stderr


class Impatient:
    """A plugin that interrupts runs which go on and on: with a budget of 2^62 steps they should."""

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self.left = PATIENCE

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


sys.modules["impatient"] = typing.cast(Any, Impatient())


def ended(config: Union[str, bytes], *arguments: str, files: dict[str, str] | None = None) -> End:
    """`python -m halos.run c.yaml ARGUMENTS`, c.yaml holding `config`, in an empty folder and this process."""
    out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
    logging.getLogger("halos").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"c.yaml": config, **(files or {})}.items():
            path = Path(folder, name)
            path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        os.chdir(folder)
        try:
            with bounded(), warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
                warnings.simplefilter("error")
                code = main(["c.yaml", *arguments, *(f"--plugin={name}" for name in (*PLUGINS, "impatient"))])
        except SystemExit as stop:  # argparse's way of ending
            code = int(stop.code or 0)
        finally:
            os.chdir(here)
        made = {each.name for each in Path(folder).iterdir()} - {"c.yaml", *(files or {})}
    return End(code, out.getvalue(), err.getvalue(), frozenset(made))


@lru_cache
def plugins() -> Plugins:
    return Plugins(PLUGINS)


def example(hint: Any) -> Any:
    """A value that fits an annotation, where there is no default."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    kinds = {protocol: kind for kind, (protocol, _) in KINDS.items()}
    if hint in kinds:
        return {"name": SIMPLEST[kinds[hint]]}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return section_of(hint)
    if origin in (list, tuple):
        return [example(each) for each in arguments if each is not ...]
    return example(arguments[0]) if arguments else {int: 1, float: 1.0, str: "x", Path: "x"}[hint]


def section_of(cls: type[Any]) -> Section:
    """A dataclass's section with every key written out: defaults, and an entry in each empty list."""
    section, hints = {}, typing.get_type_hints(cls)
    for each in dataclasses.fields(cls):
        if each.init:
            given = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
            value = example(hints[each.name]) if given is dataclasses.MISSING else to_sections(given, plugins())
            section[each.name] = example(hints[each.name]) if value == [] else value
    return section


@lru_cache
def configs() -> dict[str, tuple[Section, tuple[str, ...]]]:
    """A config for every component there is, all of its keys written out; and where in it the component is."""
    whole = to_sections(resolve(merge(merge(DEFAULTS, TINY), SMALL), plugins()), plugins())
    hints = typing.get_type_hints(Config)
    found: dict[str, tuple[Section, tuple[str, ...]]] = {"everything": (whole, ())}
    for kind, (protocol, _) in KINDS.items():
        own = [key for key, hint in hints.items() if hint is protocol]
        place = (own[0],) if own else ("policy", "outer")
        for name, component in plugins().components[kind].items():
            section = {"name": name, **section_of(component.cls), **CHOSEN.get(name, {})}
            if name != "inline":  # a model that is only a size cannot be trained
                found[f"{kind} {name}"] = (placed(whole, place, section), place)
    return found


Place = tuple[Union[str, int], ...]


def places(value: Any, before: Place = ()) -> Iterator[Place]:
    """Every key and every position in a config."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*before, key)
            yield from places(inner, (*before, key))


def placed(section: Section, place: Place, value: Any) -> Section:
    """A copy of the config with a value at a place."""
    changed = copy.deepcopy(section)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return changed


def inside(section: Section, place: Place) -> Any:
    value: Any = section
    for key in place:
        value = value[key]
    return value


def dotted(place: Place) -> str:
    """As messages write it: `cluster.regions[0].workers`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


@lru_cache
def everywhere() -> list[tuple[str, Place]]:
    """Every place in every component's config, in the name of the config."""
    return [
        (name, (*prefix, *place))
        for name, (whole, prefix) in configs().items()
        for place in places(inside(whole, prefix))
    ]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@lru_cache
def numbers() -> list[tuple[str, Place]]:
    """The places at which there is a number, or null, or nothing but numbers."""
    found = []
    for name, place in everywhere():
        value = inside(configs()[name][0], place)
        if value is None or is_number(value) or (isinstance(value, list) and all(map(is_number, value))):
            found.append((name, place))
    return found


EXTREMES = [0, -1, -0.0, 1e-320, 1e-12, 1e15, 1e308, 2**63 - 1, 2**63, 10**400, float("nan"), float("inf")]

TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(
        ["", "~", "a\nb", "\x00", "é😀", "${seed}", "${oc.env:HOME}", "${nowhere}", "${", "???", "1e999", "x" * 5000]
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 70),
    st.floats(),
    st.sampled_from(EXTREMES),
    TEXTS,
    st.sampled_from([name for kind in KINDS for name in Plugins().components[kind]]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(TEXTS, st.sampled_from(["name", "of", "at", "base", "lr", "path"])), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


def written(section: Section) -> str:
    return to_yaml(section)


def test_every_component_runs_as_it_is() -> None:
    kinds = ("policy", "fault model", "compute model", "step allocation", "network model")  # the rest only has to load
    ends = {name: ended(written(whole)) for name, (whole, _) in configs().items() if name.startswith(kinds)}
    assert {name: end.err for name, end in ends.items() if end.code} == {}


def test_extreme_numbers_are_taken_or_refused_by_their_key() -> None:
    builder, taken, refused, strange = Builder(plugins()), 0, 0, []
    for name, place in numbers():
        whole, (kind, *_) = configs()[name][0], place
        hint = typing.get_type_hints(Config)[str(kind)]
        for value in EXTREMES:
            section = placed({str(kind): whole[str(kind)]}, place, value)
            try:
                builder.convert(hint, section[str(kind)], str(kind))
                taken += 1
            except ConfigError as error:
                refused += 1
                above = {dotted(place[: length + 1]) for length in range(len(place))}
                beside = error.key.rpartition(".")[0] in above  # two keys that do not fit each other
                if not (error.key in above or beside or error.key.startswith(dotted(place))):
                    strange.append((dotted(place), value, str(error)))
    assert strange == []
    assert min(taken, refused) > len(numbers())  # neither is for want of trying


@examples(35)
@given(st.data())
def test_with_extreme_numbers_a_run_ends_normally_or_is_refused(data: st.DataObject) -> None:
    name, place = data.draw(st.sampled_from(numbers()))
    value = data.draw(st.sampled_from(EXTREMES))
    end = ended(written(placed(configs()[name][0], place, value)))
    assert end.well, (dotted(place), value, end)


@examples(35)
@given(st.data())
def test_with_any_value_at_any_key_too(data: st.DataObject) -> None:
    name, place = data.draw(st.sampled_from(everywhere()))
    value = data.draw(VALUES)
    end = ended(written(placed(configs()[name][0], place, value)))
    assert end.well, (dotted(place), value, end)
    known = [each.name for each in dataclasses.fields(Config)]
    if end.code == 2:
        assert end.err.removeprefix("error: ").startswith((*known, "plugin ", "c.yaml ")), (dotted(place), value, end)


CUTS = st.tuples(st.integers(0, 2000), st.integers(0, 40))
CLUMSY = st.sampled_from([
    "\t", " ", "\n", ":", "- ", "[", "]", "{", "}", "&a ", "*a", "!!", "|", ">", "'", '"', "#", "%", "---\n",
    "<<: ", "? ", "\ufeff", "\0", "\x85", "\u2028", "\x1b", "\r", "${", "!!python/name:os.system ", "!!set ",
])  # fmt: skip


@examples(50)
@given(st.data())
def test_so_does_a_run_of_a_damaged_file(data: st.DataObject) -> None:
    text = written(configs()[data.draw(st.sampled_from(sorted(configs())))][0])
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(CUTS)
        at %= len(text) + 1
        piece = data.draw(st.one_of(st.just(""), CLUMSY, st.text(max_size=9), st.just(text[at : at + 3 * length])))
        text = text[:at] + piece + text[at + length :]
    if data.draw(st.integers(0, 5)) == 0:
        end = ended(text.encode("utf-8", "replace") + data.draw(st.binary(max_size=9)))
    else:
        end = ended(text)
    assert end.well, (text, end)


KEYS = st.one_of(
    st.builds(lambda each: dotted(each[1]), st.sampled_from(everywhere())),
    st.text(st.sampled_from("abc.[]= \n$"), max_size=12),
    st.sampled_from(["extends", "plugins", "policy.outer.name", "evaluate.sets.a.b", "a" + ".a" * 3000]),
)


@examples(40)
@given(st.lists(st.tuples(KEYS, st.one_of(TEXTS, VALUES.map(repr))), min_size=1, max_size=3), st.booleans())
def test_and_whatever_is_written_on_the_command_line(changes: list[tuple[str, str]], equals: bool) -> None:
    arguments = [f"{key}{'=' if equals else ' '}{value}".replace("\x00", "") for key, value in changes]
    arguments = [each for each in arguments if not each.lstrip().startswith("-")]  # options are argparse's business
    end = ended(written(configs()["everything"][0]), *arguments)
    assert end.well, (arguments, end)
