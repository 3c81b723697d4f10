"""Files made to crash, fill the memory or run code, and environment files of any shape: one line, and at once."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos.config.env import with_env
from halos.config.layers import merge, read
from halos.config.yaml_text import to_yaml
from halos.errors import ConfigError, shown
from halos.testing import TINY
from halos.world.cluster import ClusterOptions, build
from tests.fuzz.test_config import EXTREMES, TEXTS, VALUES, ended
from tests.outcome import bounded, examples

TIMED = merge(TINY, {"executor": {"name": "timing"}, "observers": {"progress": False}})
TEXT = to_yaml(TIMED)
ENV = {"num_regions": 2, "network_bandwidths": [[9, 1], [1, 9]], "worker_speeds": [[1, 1], [1]]}
IN_ENV = "cluster={env: env.yaml, regions: []}"


def laughs(lines: int, of: int = 9) -> str:
    """A billion laughs: every line a list of the one before, many times over."""
    first = "a0: &a0 [" + ", ".join(["ha"] * of) + "]\n"
    return first + "".join(f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * of) + "]\n" for i in range(1, lines))


def references(lines: int, text: str) -> str:
    """The same with ${…}, `text` having the line before in it as {0}."""
    return "a0: ha\n" + "".join(f"a{i}: {text.format('${a' + str(i - 1) + '}')}\n" for i in range(1, lines))


REFUSED = "c.yaml is not valid YAML: …"  # in a library's words, or in ours where we look first
HOSTILE = {
    "a hundred thousand brackets": (f"x: {'[' * 100_000}{']' * 100_000}", REFUSED),
    "a hundred thousand dashes": ("- " * 100_000, REFUSED),
    "a billion laughs": (laughs(10), REFUSED),
    "three lines of laughs": (laughs(4), REFUSED),
    "laughs that are few enough": (laughs(3), "a0: no such key; there are: aggregate, budget, …"),
    "what is flat, but each in the next": (laughs(180, of=1), REFUSED),
    "a list that holds itself": ("a: &a [*a]", REFUSED),
    "references that double thirty times": (references(30, "{0}{0}"), "more than 2,000 ${…}, or too long: …"),
    "lists of references": (references(9, "[" + ", ".join(["'{0}'"] * 9) + "]"), "more than 2,000 ${…}, …"),
    "references in a circle": ("name: ${out}\nout: ${name}", "name: …"),
    "a number of 100,000 digits": (f"seed: {'9' * 100_000}", REFUSED),
    "and one in hexadecimal": (f"{TEXT}seed: 0x{'f' * 100_000}", "seed: a number of 400000 bits is too large; …"),
    "a key of half a million characters": (f"? {'x' * 500_000}\n: 1", "xxx…"),
    "a tag that does not fit": ("seed: !!bool much", "c.yaml is not valid YAML: a value does not fit its tag (!!…)"),
    "five thousand regions": (
        TEXT.replace("  regions:\n", "  regions:\n" + 5000 * "  - {}\n"),
        "network: a matrix of links is for at most 4,096 regions; there are 5,001",
    ),
}  # fmt: skip


def says(line: str, message: str) -> bool:
    """Whether `line` is the error `message`, or, if that ends in …, begins with it."""
    return line.startswith("error: " + message[:-1]) if message.endswith("…") else line == f"error: {message}\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_a_line_that_can_be_read(name: str) -> None:
    text, message = HOSTILE[name]
    end = ended(text)
    assert end.well
    assert says(end.err, message), end.err
    assert len(end.err) < 2100


def test_what_aliases_and_references_are_for_still_works() -> None:
    text = TEXT + "name: ${policy.name}-${seed}-${policy.outer.lr}\nseed: 7\n"
    regions = "  - workers:\n    - 1.0\n    - 1.0\n"
    assert regions in text
    used = ended(text.replace(regions, "  - &row {workers: [1.0, 0.5]}\n  - *row\n"))
    assert (used.code, used.made) == (0, {"runs"})


def test_many_references_to_what_has_none_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALOS_DATA", "tokens")
    sets = {f"s{i}": {"name": "tokens", "path": "${oc.env:HALOS_DATA}/${name}/${seed}.npy"} for i in range(40)}
    end = ended(to_yaml(merge(TIMED, {"name": "own", "seed": 3, "evaluate": {"sets": sets}})))
    assert (end.code, end.err) == (0, "")  # in timing mode no data is opened


def test_ten_thousand_workers_can_be_written_out(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml({"cluster": {"regions": [{"workers": [1.0] * 10_001}]}}))
    assert len(read(tmp_path / "c.yaml")["cluster"]["regions"][0]["workers"]) == 10_001


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (1000, "extends: c50.yaml is the last of more than 50 files that extend each other"),
        (49, "budget: empty; …"),
    ],
)
def test_files_that_extend_files_end_somewhere(files: int, message: str) -> None:
    chain = {f"c{i}.yaml": f"extends: c{i + 1}.yaml\nseed: {i}" for i in range(1, files)} | {
        f"c{files}.yaml": "seed: 1"
    }
    end = ended("extends: c1.yaml\nmodel: {name: sized, parameters: 1}\npolicy: diloco\nsteps: fixed", files=chain)
    assert end.well and says(end.err, message), end.err


def test_a_file_that_is_extended_many_times_over_is_read_once() -> None:
    twice = {f"c{i}.yaml": f"extends: [c{i + 1}.yaml, c{i + 1}.yaml]\n" for i in range(1, 40)} | {"c40.yaml": TEXT}
    assert ended("extends: [c1.yaml, c1.yaml]", files=twice).code == 0  # 2^40 times would take for ever


CODE = [
    '!!python/object/apply:os.system ["touch pwned"]',
    '!!python/object/new:os.system ["touch pwned"]',
    "!!python/object/apply:builtins.eval [\"open('pwned', 'w')\"]",
    "!!python/name:os.system",
    "!!python/module:os",
    "${eval:open('pwned','w')}",
    "${oc.eval:1+1}",
    "${python:1}",
    "{{ 1 + 1 }}",
    "$(touch pwned)",
    "`touch pwned`",
    "__import__('os').system('touch pwned')",
]


@pytest.mark.parametrize("payload", CODE)
@pytest.mark.parametrize("key", ["name", "seed", "policy.outer.lr", "cluster.regions", "plugins"])
def test_no_value_is_code(key: str, payload: str) -> None:
    for end in (ended(TEXT, f"{key}={payload}"), ended(merged_text(key, payload))):
        assert end.well and end.made <= {"runs"}
        assert end.code == 2 or key == "name"  # a folder may be called what one likes
        assert "pwned" not in end.err or payload[:9] in end.err  # only ever quoted


def merged_text(key: str, payload: str) -> str:
    """A file in which the top of `key` has the payload, whatever else it had."""
    top = key.partition(".")[0]
    kept = {name: section for name, section in TIMED.items() if name != top}
    return to_yaml(kept) + f"{top}: {payload}\n"


def test_a_reference_reads_the_configuration_and_the_environment_and_decodes_yaml_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HALOS_NAME", "__import__('os').getcwd()")
    end = ended(TEXT, "name=${oc.env:HALOS_NAME}", "seed=${oc.decode:'1+1'}")
    assert says(end.err, "seed: '1+1' is not an integer")
    assert ended(TEXT, "name=${oc.env:HALOS_NAME}", "--show-config").out.count("__import__('os').getcwd()") == 1


@examples(25)
@given(st.data())
def test_an_environment_file_of_any_shape_makes_a_run_or_one_line(data: st.DataObject) -> None:
    env: Any = json.loads(json.dumps(ENV))
    key = data.draw(st.sampled_from([*ENV, "", "other"]))
    entries = st.one_of(st.sampled_from([1, 0.5, *EXTREMES, True, None, "1", "${seed}"]), st.integers(), st.floats())
    rows = st.lists(st.one_of(st.lists(entries, max_size=3), entries), max_size=3)
    value = data.draw(st.one_of(rows, VALUES, TEXTS))
    if key:
        env[key] = value
    elif data.draw(st.booleans()):
        env = value
    else:
        del env[data.draw(st.sampled_from(list(ENV)))]
    end = ended(TEXT, IN_ENV, "network.bandwidth_gbps=null", files={"env.yaml": to_yaml(env)})
    assert end.well, (env, end)
    assert end.code == 0 or end.err.startswith(("error: cluster.", "error: network.")), (env, end)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({**ENV, "num_regions": 10**9}), "env.yaml: worker_speeds has 2 rows for 1000000000 regions"),
        (json.dumps({**ENV, "num_regions": -0.0}), "env.yaml: num_regions is -0.0, not a positive integer"),
        (json.dumps({**ENV, "worker_speeds": [[10**400], [1]]}), "env.yaml: worker_speeds[0][0] is 1000000000000…"),
        (f"num_regions: 0x{'f' * 99_999}\nnetwork_bandwidths: []\nworker_speeds: []",
         "env.yaml: worker_speeds has 0 rows for a number of 399996 bits regions"),
        (f"{laughs(12)}num_regions: 1\nnetwork_bandwidths: [[1]]\nworker_speeds: [[*a11]]",
         "env.yaml: worker_speeds[0][0] is [[[[[[[[[[[['ha', 'ha', …"),
        (f"{laughs(12)}num_regions: *a11\nnetwork_bandwidths: [[1]]\nworker_speeds: [[1]]",
         "env.yaml: num_regions is [[[[[[[[[[[['ha', 'ha', …"),
        ("[" * 100_000, "env.yaml cannot be read: line 1…"),
        (f"num_regions: {'9' * 5000}", "env.yaml cannot be read: …"),
        (json.dumps({**ENV, "worker_speeds": [["X", 1], [1]]}).replace('"X"', "1.0e-320"),
         "regions[0].workers[0]: 1e-320 is not …"),
    ],
)  # fmt: skip
def test_a_hostile_environment_file_takes_no_memory(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.yaml").write_text(text)
    tracemalloc.start()
    try:
        with bounded(), pytest.raises(ConfigError) as caught:
            build(with_env(ClusterOptions(env=Path("env.yaml"))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    key = "" if message.startswith("regions") else "env: "
    assert says(f"error: {caught.value}\n", key + message), caught.value
    assert peak < 30e6


class Word(str):
    """Written without quotes."""

    def __repr__(self) -> str:
        return str(self)


def as_yaml_has_it(value: Any) -> Any:
    """A value with null, true and false in the places of None, True and False."""
    if value is None or isinstance(value, bool):
        return Word({None: "null", True: "true", False: "false"}[value])
    if isinstance(value, list):
        return [as_yaml_has_it(item) for item in value]
    return {key: as_yaml_has_it(item) for key, item in value.items()} if isinstance(value, dict) else value


@examples(100)
@given(VALUES)
def test_a_value_is_quoted_as_python_writes_it_but_for_the_words_of_yaml_or_cut(value: Any) -> None:
    whole = repr(as_yaml_has_it(value))
    assert shown(value) == whole if len(whole) <= 100 else shown(value).startswith(whole[:60] + "…")
