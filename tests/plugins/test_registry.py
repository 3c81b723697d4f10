"""Plugins: single files, modules, installed packages; and what is wrong with one is said in one line."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from halos.errors import UserError
from halos.plugins.loading import load_plugin
from halos.plugins.registry import KINDS, Plugins, built_in
from halos.testing import record, tiny

HEAD = "from dataclasses import dataclass\nfrom halos.hooks import hookimpl\n"

# A policy of one's own: every worker trains one step at a time, and the first to be there is taken.
POLICY = (
    HEAD
    + '''
@dataclass
class Race:
    """The first update of each round is committed."""

    share: float = 1.0

    async def run(self, sim):
        for _ in sim.rounds():
            updates = [await sim.train(worker, sim.params, 1) for worker in sim.workers]
            sim.commit(sim.params - self.share * updates[0].delta, updates)

@hookimpl
def register_sync_policies(register):
    register("race", Race)
'''
)

OBSERVER = (
    HEAD
    + """
heard = []

@hookimpl
def on_start(experiment):
    heard.append(("start", experiment.name))

@hookimpl
def on_commit(commit):
    heard.append(("commit", commit.version))

@hookimpl
def on_finish(summary):
    with open("heard.txt", "w") as file:
        print(*heard, ("finish", summary["finished"]), sep="\\n", file=file)
"""
)


def codec(name: str = "tenth", body: str = "") -> str:
    methods = (
        "    def roundtrip(self, payload): return payload\n    def wire_bytes(self, payload): return payload.size\n"
    )
    return (
        HEAD + f"@dataclass\nclass Mine:\n{body or methods}\n"
        f"@hookimpl\ndef register_codecs(register): register({name!r}, Mine)\n"
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_halos_brings_something_of_every_kind_through_the_same_door():
    plugins = Plugins()
    assert [kind for kind in KINDS if not plugins.components[kind]] == ["observer"]  # its own are options, not named
    assert plugins.components["policy"]["diloco"].summary.startswith("Synchronous local SGD")
    assert {each.origin for kind in KINDS for each in plugins.components[kind].values()} == {"halos"}
    assert "halos.policies.diloco" in built_in()


def test_every_run_has_plugins_of_its_own(folder):
    (folder / "one.py").write_text(codec())
    assert "tenth" in Plugins(["one.py"]).components["codec"]
    assert "tenth" not in Plugins().components["codec"]


def test_a_policy_in_a_single_file_runs_from_the_command_line(command, tiny_yaml):
    files = {"race.py": POLICY, "c.yaml": tiny_yaml(policy={"name": "race", "share": 0.5})}
    got = command("c.yaml", "--plugin", "race.py", "budget.local_steps=2", files=files)
    assert (got.code, got.err) == (0, "")
    assert "runs/run/model.pt" in got.made


def test_its_config_names_the_plugin_and_can_be_run_again(command, tiny_yaml, tmp_path):
    files = {"race.py": POLICY, "c.yaml": tiny_yaml(policy={"name": "race"})}
    shown = command("c.yaml", "--show-config", "--plugin", "race.py", files=files).out
    assert f"plugins:\n- {tmp_path}/race.py\n" in shown
    assert command("shown.yaml", "--show-config", files={"shown.yaml": shown}).out == shown
    assert command("shown.yaml", "name=again").code == 0


def test_the_plugins_key_loads_a_file_beside_the_config(command, tiny_yaml):
    files = {"conf/race.py": POLICY, "conf/c.yaml": tiny_yaml(policy={"name": "race"}, plugins=["race.py"])}
    assert command("conf/c.yaml", files=files).code == 0


def test_a_module_on_the_path_is_a_plugin_too(folder):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "idea.py").write_text(POLICY)
    run = record(tiny(policy={"name": "race", "share": 1.0}, budget={"local_steps": 2}), plugins=["my_package.idea"])
    # gradient of ½ Σ (θ − 1)² at 0 is −1: one step of lr 0.1 takes θ to 0.1, and only that is committed
    assert run.simulation.params.flat.tolist() == pytest.approx([0.1, 0.1])


def test_a_plugin_may_only_watch(command, tiny_yaml, tmp_path):
    got = command("c.yaml", "--plugin", "watch.py", files={"watch.py": OBSERVER, "c.yaml": tiny_yaml()})
    assert got.code == 0
    assert (tmp_path / "heard.txt").read_text().splitlines() == [
        "('start', 'run')", "('commit', 1)", "('commit', 2)", "('finish', True)",
    ]  # fmt: skip


def test_list_plugins_names_every_component_and_where_it_comes_from(command):
    source = POLICY.replace("The first update", "The [bold] first update")  # no markup
    got = command("--list-plugins", "--plugin", "race.py", files={"race.py": source})
    rows = [re.split(r" {2,}", line.strip()) for line in got.out.splitlines()]
    assert rows[0] == ["kind", "name", "from", "what"]
    assert ["policy", "race", "race.py", "The [bold] first update of each round is committed."] in rows
    silent = source.replace('    """The [bold] first update of each round is committed."""', "")
    quiet = command("--list-plugins", "--plugin", "race.py", files={"race.py": silent})
    assert ["policy", "race", "race.py"] in [re.split(r" {2,}", line.strip()) for line in quiet.out.splitlines()]
    assert ["codec", "fp32", "halos", "Four bytes per parameter; values unchanged."] in rows
    assert (got.code, got.err, got.made) == (0, "", set())


class Distribution:
    """An installed package with one entry point."""

    def __init__(self, name: str, load: object, group: str = "halos") -> None:
        self.metadata, self.version = {"Name": name}, "1.2"
        self.entry_points = [SimpleNamespace(group=group, load=load)]


def install(monkeypatch, *distributions: Distribution) -> None:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: distributions)


def module(source: str, name: str = "installed") -> SimpleNamespace:
    namespace: dict[str, object] = {"__name__": __name__}
    exec(source, namespace)
    return SimpleNamespace(
        __name__=name, **{key: value for key, value in namespace.items() if key.startswith("register")}
    )


def test_an_installed_package_is_found_by_its_entry_point(monkeypatch):
    mine = module(codec())
    install(monkeypatch, Distribution("halos-tenth", lambda: mine), Distribution("other", lambda: 1 / 0, group="other"))
    plugins = Plugins()
    assert plugins.components["codec"]["tenth"].origin == "halos-tenth 1.2"
    assert plugins.versions() == {"halos-tenth 1.2": "unknown"}  # not a module: there is no source to hash


def test_two_packages_with_one_name_are_an_error_that_names_both(monkeypatch):
    one, other = module(codec(), "one"), module(codec(), "other")
    install(monkeypatch, Distribution("halos-one", lambda: one), Distribution("halos-other", lambda: other))
    with pytest.raises(UserError, match=r"'tenth': halos-o\w+ 1\.2 and halos-o\w+ 1\.2; rename one") as caught:
        Plugins()
    assert "halos-one" in str(caught.value) and "halos-other" in str(caught.value)


def test_an_installed_package_that_does_not_load_is_named(monkeypatch):
    install(monkeypatch, Distribution("halos-broken", lambda: 1 / 0))
    with pytest.raises(
        UserError, match=r"^plugin halos-broken 1\.2 cannot be loaded: ZeroDivisionError: division by zero"
    ):
        Plugins()


def test_a_file_is_loaded_once_however_it_is_written(folder):
    (folder / "one.py").write_text(codec())
    plugins = Plugins(["one.py", "./one.py", str(folder / "one.py")])
    assert list(plugins.versions()) == [str(folder / "one.py")]


def test_two_files_of_one_name_are_two_plugins(folder):
    for name, limit in (("a", 1), ("b", 2)):
        (folder / name).mkdir()
        source = codec(name).replace("class Mine:\n", f"class Mine:\n    limit: 'Limit' = {limit}\n")
        (folder / name / "mine.py").write_text(source + ("Limit = int\n" if name == "a" else "Limit = float\n"))
    sections = [tiny(codec={"name": name, "limit": 3}) for name in ("a", "b")]
    limits = [record(each, plugins=["a/mine.py", "b/mine.py"]).config.codec.limit for each in sections]
    assert [(type(limit), limit) for limit in limits] == [(int, 3), (float, 3.0)]


def test_versions_are_hashes_of_the_source(folder):
    (folder / "one.py").write_text(codec())
    before = Plugins(["one.py"]).versions()["one.py"]
    (folder / "one.py").write_text(codec() + "# changed\n")
    assert before.startswith("sha256:") and Plugins(["one.py"]).versions()["one.py"] != before


def policy(body: str) -> str:
    return f"{HEAD}@dataclass\nclass Mine:\n    {body}\n{REGISTER}register('mine', Mine)\n"


REGISTER = "@hookimpl\ndef register_sync_policies(register): "
SOURCE = "@hookimpl\ndef register_data_sources(register): register('mine', Mine)\n"
OBSERVE = "@hookimpl\ndef register_observers(register): register('mine', Mine)\n"


def observer(body: str) -> str:
    return f"{HEAD}@dataclass\nclass Mine:\n    {body}\n{OBSERVE}"


WRONG = [
    ("def (:\n", "plugin mine.py cannot be loaded: SyntaxError: "),
    ("import not_there\n", "plugin mine.py cannot be loaded: ModuleNotFoundError: "),
    ("x = 1\nx / 0\n", "plugin mine.py cannot be loaded: ZeroDivisionError: division by zero ("),
    ("raise SystemExit(3)", "plugin mine.py cannot be loaded: SystemExit: 3 ("),
    ("x = 1\n", "plugin mine.py implements no hook; see halos/plugins/hookspecs.py and mark functions @hookimpl"),
    (
        HEAD + "@hookimpl\ndef on_comit(commit): pass\n",
        "plugin mine.py: there is no hook 'on_comit' (did you mean 'on_commit'?); there are: ",
    ),
    (HEAD + "@hookimpl\ndef on_commit(comit): pass\n", "plugin mine.py: "),
    (f"{HEAD}class Mine: pass\n{REGISTER}register('mine', Mine)", "plugin mine.py: policy 'mine' is <class 'halos_"),
    (f"{HEAD}{REGISTER}register('mine', 3)", "plugin mine.py: policy 'mine' is 3; it must be a dataclass"),
    (f"{HEAD}{REGISTER}register()", "plugin mine.py: register_sync_policies failed: TypeError: "),
    (f"{HEAD}{REGISTER}register('', int)", "plugin mine.py: policy '' has no name; a name is a text"),
    (policy("x: int = 1"), "plugin mine.py: policy 'mine' has no method run() (see halos.SyncPolicy)"),
    (policy("def run(self, sim): pass"), "plugin mine.py: policy 'mine' has a method run() that is no coroutine; "),
    (
        policy("name: str = ''\n    async def run(self, sim): pass"),
        "plugin mine.py: policy 'mine' has a field 'name', the key that picks the component in a config; ",
    ),
    (
        HEAD + "@dataclass\nclass Mine:\n    def vocabulary(self): pass\n    def open(self, seed): pass\n" + SOURCE,
        "plugin mine.py: data source 'mine' has no field 'sequence_length' (see halos.DataSource)",
    ),
    (observer("def state(self): pass"), "plugin mine.py: observer 'mine' is told of nothing: none of its methods is "),
    (
        observer("def on_commit(self, commit): pass"),
        "plugin mine.py: observer 'mine' has a method on_commit() that is not marked @hookimpl, and would not be told",
    ),
    (
        observer("@hookimpl\n    def on_comit(self, commit): pass"),
        "plugin mine.py: observer 'mine' has a method on_comit(), and there is no such hook (did you mean 'on_commit'?)"
        "; there are: on_start, ",
    ),
    (
        observer("@hookimpl\n    def on_commit(self, record): pass"),
        "plugin mine.py: observer 'mine' has a method on_commit() that takes record; there is: commit",
    ),
    (
        policy("@hookimpl\n    def on_update(self, commit): pass\n    async def run(self, sim): pass"),
        "plugin mine.py: policy 'mine' has a method on_update() that takes commit; there is: update",
    ),
    (
        codec("fp16"),
        "two plugins bring a codec named 'fp16': halos and mine.py; rename one, or load only one of them",
    ),
]


@pytest.mark.parametrize(("source", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_with_a_plugin_is_one_line_that_names_it(command, tiny_yaml, source, message):
    got = command("c.yaml", "--plugin", "mine.py", files={"mine.py": source, "c.yaml": tiny_yaml()})
    assert (got.code, got.made) == (2, set())
    assert got.err.startswith(f"error: {message}") and got.err.count("\n") == 1


def test_a_misspelt_hook_gets_a_suggestion(folder):
    (folder / "mine.py").write_text(HEAD + "@hookimpl\ndef register_policies(register): pass\n")
    with pytest.raises(
        UserError, match=r"no hook 'register_policies' \(did you mean 'register_sync_policies'\?\); there are: "
    ):
        Plugins(["mine.py"])


def test_the_line_that_broke_a_plugin_is_named(folder):
    (folder / "mine.py").write_text("x = 1\n\n1 / 0\n")
    with pytest.raises(UserError, match=r"division by zero \(.*mine\.py, line 3\)$"):
        Plugins(["mine.py"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "plugin nowhere.py: no such file"),
        ("nowhere", "plugin nowhere: no such module (and a file's name would end in .py)"),
        ("halos.nowhere", "plugin halos.nowhere: no such module (and a file's name would end in .py)"),
        ("json", "plugin json implements no hook; see halos/plugins/hookspecs.py and mark functions @hookimpl"),
        ("", "plugin  cannot be loaded: ValueError: "),
    ],
)
def test_a_plugin_that_is_none_is_named(name, message):
    with pytest.raises(UserError) as caught:
        Plugins([name])
    assert str(caught.value).startswith(message)


def test_a_module_that_halos_loads_anyway_is_no_second_plugin():
    assert Plugins(["halos.rules.merge"]).versions() == {}


def test_a_config_may_name_the_file_of_a_plugin_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from dataclasses import dataclass\nfrom halos import hookimpl\nfrom halos.rules.merge import SGD\n\n"
        "@dataclass(frozen=True)\nclass Mine(SGD):\n    pass\n\n"
        "@hookimpl\ndef register_merge_rules(register):\n    register('mine', Mine)\n"
    )
    (tmp_path / "site").mkdir()
    for folder in (tmp_path, tmp_path / "site"):
        (folder / "mine_plugin.py").write_text(source)
    installed = load_plugin(str(tmp_path / "site/mine_plugin.py"))
    monkeypatch.setattr(Plugins, "_add_installed", lambda self: self._add(installed, "mine 1.0"))
    found = Plugins([str(tmp_path / "mine_plugin.py")])
    assert found.components["merge rule"]["mine"].origin == "mine 1.0"
    (tmp_path / "mine_plugin.py").write_text(source + "# another\n")
    with pytest.raises(UserError, match="two plugins bring a merge rule named 'mine'"):
        Plugins([str(tmp_path / "mine_plugin.py")])


PACKAGE = {
    "__init__.py": HEAD
    + "from .parts import Race\n"
    + "@hookimpl\ndef register_sync_policies(register):\n    register('race', Race)\n",
    "parts.py": POLICY[: POLICY.index("@hookimpl")],
}


def write_package(folder: Path) -> str:
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(text)
    return str(folder / "__init__.py")


def test_a_package_is_named_by_its_init_file_and_its_modules_find_each_other(tmp_path):
    plugins = Plugins([write_package(tmp_path / "racing")])
    assert plugins.find("policy", "race").__module__.endswith(".parts")


def test_the_version_of_a_package_is_that_of_all_its_modules(tmp_path):
    plugin = write_package(tmp_path / "racing")
    before = Plugins([plugin]).versions()[plugin]
    (tmp_path / "racing/parts.py").write_text(
        PACKAGE["parts.py"].replace("The first update of each round is committed", "Another")
    )
    again = Plugins([plugin])
    assert again.versions()[plugin] != before
    assert again.find("policy", "race").__doc__ == "Another."


def test_two_packages_of_one_name_in_different_folders_are_two(tmp_path):
    for place, word in (("a", "first"), ("b", "second")):
        (tmp_path / place).mkdir()
        plugin = write_package(tmp_path / place / "racing")
        parts = tmp_path / place / "racing/parts.py"
        parts.write_text(parts.read_text().replace("The first update of each round", word))
        assert Plugins([plugin]).components["policy"]["race"].summary == f"{word} is committed."


def test_a_package_that_cannot_be_loaded_leaves_nothing_behind(tmp_path):
    plugin = write_package(tmp_path / "racing")
    (tmp_path / "racing/parts.py").write_text("Race = 1 / 0")
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero \(.*parts\.py, line 1\)"):
        load_plugin(plugin)
    assert set(sys.modules) == before
    (tmp_path / "racing/parts.py").write_text(PACKAGE["parts.py"])
    assert Plugins([plugin]).find("policy", "race")
