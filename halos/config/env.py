"""Environment files of the original simulator, `cluster.env`: read once, when a configuration is resolved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from halos.config.yaml_text import SafeLoader, check_depth, placed
from halos.errors import ConfigError, from_here, in_a_line, positive, shown
from halos.world.cluster import ClusterOptions, RegionOptions


def with_env(options: ClusterOptions) -> ClusterOptions:
    """Return `options` with regions and bandwidths from the file that `env` names; as they are without one.

    Raises ConfigError for a file that cannot be used.
    """
    if options.env is None:
        return options
    regions, bandwidths = read_env(options.env)
    return replace(options, env=None, regions=[RegionOptions(*region) for region in regions], bandwidth_gbps=bandwidths)


def read_env(path: Path) -> tuple[list[tuple[str, list[float]]], list[list[float]]]:
    """Upstream's environment file: names and speeds per region, bandwidths in Gbit/s [from][to]."""
    path = Path(from_here(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
        check_depth(text)
        env = yaml.load(text, Loader=SafeLoader)
    except FileNotFoundError:
        raise ConfigError("env", f"{path} does not exist") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError("env", f"{path} cannot be read: {placed(error)}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError("env", f"{path} cannot be read: {in_a_line(error)}") from None
    if not isinstance(env, dict):
        raise ConfigError("env", f"{path} is no mapping with num_regions, network_bandwidths, worker_speeds")
    for key in ("num_regions", "network_bandwidths", "worker_speeds"):
        if key not in env:
            raise ConfigError("env", f"{path} has no key {key!r}")
    regions = env["num_regions"]
    if isinstance(regions, bool) or not isinstance(regions, int) or regions < 1:
        raise ConfigError("env", f"{path}: num_regions is {shown(regions)}, not a positive integer")
    speeds = _rows(env["worker_speeds"], path, "worker_speeds")
    if len(speeds) != regions:
        raise ConfigError("env", f"{path}: worker_speeds has {len(speeds)} rows for {shown(regions)} regions")
    bandwidths = _rows(env["network_bandwidths"], path, "network_bandwidths")
    widths = [len(row) for row in bandwidths]
    if widths != [regions] * regions:
        shape = f"{len(widths)} rows of {'/'.join(map(str, sorted(set(widths))))} numbers"
        raise ConfigError(
            "env", f"{path}: network_bandwidths has {shape}, not {shown(regions)} rows of {shown(regions)}"
        )
    return [(f"region-{index}", row) for index, row in enumerate(speeds)], bandwidths


def _rows(value: Any, path: Path, key: str) -> list[list[float]]:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ConfigError("env", f"{path}: {key} is not a list of lists")
    for i, row in enumerate(value):
        for j, entry in enumerate(row):
            if not positive(entry):
                raise ConfigError("env", f"{path}: {key}[{i}][{j}] is {shown(entry)}, not a positive, finite number")
    return [[float(entry) for entry in row] for row in value]
