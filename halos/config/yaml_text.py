"""YAML text as configurations have it: read without executing, growing or hanging, and written to be read back."""

from __future__ import annotations

import re
from typing import Any

import yaml
from omegaconf import OmegaConf

from halos.config.written import Items, Layer, Spelled, plain

Section = dict[str, Any]
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one

MOST_NESTED = 50  # sections in sections
MERGED_IN = "tag:yaml.org,2002:merge"  # what `<<` means
NODES = 100_000  # keys and values in a file, those that aliases repeat included; OmegaConf takes 0.2 ms for each


def to_yaml(sections: Section) -> str:
    """Sections as YAML text."""
    text: str = yaml.dump(
        plain(sections), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's, where there is one
    """Quotes texts that OmegaConf would read back as numbers though YAML does not: `1e3`."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse(text: str) -> Any:
    """YAML (as OmegaConf reads it: `1e-3` is a number) as sections and lists that know how their values were spelled.

    Keys are texts, as they are written. Raises ValueError, of one line, for what is no YAML.
    """
    try:
        check_depth(text)
        parsed = OmegaConf.to_container(OmegaConf.create(text, max_yaml_expanded_nodes=NODES), resolve=False)
        root = yaml.compose(text, Loader=SafeLoader)
    except yaml.MarkedYAMLError as error:
        if str(error.problem).startswith("YAML node expansion"):  # OmegaConf's advice would not help here
            raise ValueError(f"more than {NODES:,} keys and values (a large network goes into an env file)") from None
        if str(error.problem).startswith("YAML aliases"):
            raise ValueError("its aliases repeat too much") from None
        raise ValueError(placed(error)) from None
    except AssertionError:  # OmegaConf's answer to a number or a boolean
        return text
    except RecursionError:  # aliases can nest what is written flat
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # PyYAML raises many kinds; all mean that this is no config
        if isinstance(error, (KeyError, AttributeError, TypeError)):  # PyYAML's answer to `!!bool much`
            raise ValueError("a value does not fit its tag (!!…)") from None
        raise ValueError(next(iter(str(error).splitlines()), "")) from None
    if isinstance(parsed, dict) and list(parsed.values()) == [None] and ":" not in text:
        return text  # OmegaConf makes `{text: null}` of it
    return parsed if root is None else _spelled(root, parsed)


def _spelled(node: yaml.Node, value: Any) -> Any:
    """Return `value`, which OmegaConf made of `node`, with keys as they are written and values that know how."""
    if isinstance(node, yaml.MappingNode) and isinstance(value, dict):
        pairs = _pairs(node)
        if len(pairs) != len(value):
            raise ValueError("two keys of a section mean the same")
        return Layer((key, _spelled(inner, value[own])) for (key, inner), own in zip(pairs.items(), value, strict=True))
    if isinstance(node, yaml.SequenceNode) and isinstance(value, list):
        return Items(_spelled(*pair) for pair in zip(node.value, value, strict=True))
    if isinstance(node, yaml.ScalarNode) and not isinstance(value, str):
        return Spelled(value, node.value)
    return value


def _pairs(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    """Return keys and what is there, in the order in which PyYAML has them: first what `<<` merges into a mapping."""
    own, merged = {}, {}
    for key, inner in node.value:
        if key.tag == MERGED_IN:
            for each in [inner] if isinstance(inner, yaml.MappingNode) else reversed(inner.value):
                merged.update(_pairs(each))
        else:
            own[str(key.value)] = inner
    return {key: inner for key, inner in merged.items() if key not in own} | own


def placed(error: yaml.MarkedYAMLError) -> str:
    """Return in words where a text is wrong (line and column from 1), and what is wrong with it."""
    mark = error.problem_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{error.problem}"


def check_depth(text: str) -> None:
    """Raise ValueError if YAML is nested so deeply that libyaml's recursion would crash the interpreter."""
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > MOST_NESTED:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ValueError(f"line {line}: nested more than {MOST_NESTED} deep")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
