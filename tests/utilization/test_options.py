"""Options of utilisation: a mistake in one is one line, by its key."""

from __future__ import annotations

import pytest

from halos.utilization import __main__ as utilization


def method(text: str) -> str:
    return f"methods=[{{label: m, {text}}}]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("models=[]", "models: [] is not a list of at least one"),
        ("models=[{label: m}]", "models[0].parameters: missing; it must be an integer"),
        (
            "models=[{label: m, parameters: 1, layers: 2, step_time_seconds: 1}]",
            "parameters: 1 is not at least one per",
        ),
        (method("evry: 1"), "methods[0].evry: no such key (did you mean 'every'?); there are: bits, codec, every, "),
        (method("every: 0"), "methods[0].every: 0 is not a number from 1"),
        (method("every: 3, overlap: 4"), "methods[0].overlap: 4 is not a number from 0 to every (3)"),
        (method("every: 3, fragments: {of_layers: 0}"), "methods[0].fragments.of_layers: 0 is not a positive number"),
        (method("every: 3, fragments: {of_layers: 3, pattern: odd}"), "fragments.pattern: 'odd' is not a pattern"),
        (
            method("every: 3, codec: fp3"),
            "methods[0].codec.name: 'fp3' is not installed (did you mean 'fp32'?); installed: ",
        ),
        (method("every: 3, codec: fp16, bits: 8"), "methods[0].bits: given together with a codec"),
        ("methods=[{label: m, every: 1}, {label: m, every: 2}]", "methods: ['m'] is not the label of one only"),
        ("bandwidth_gbps.lowest=200", "bandwidth_gbps.highest: 100.0 is not a number above 200"),
        ("targets_percent=[50, 101]", "targets_percent[1]: 101.0 is not a percentage above 0"),
        ("bits_per_parameter=.inf", "bits_per_parameter: inf is not a positive number"),
        ("plugins=x", "plugins: 'x' is not a list of files or modules"),
    ],
)
def test_a_mistake_is_one_line(small: str, change: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert utilization.main([small, change]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
