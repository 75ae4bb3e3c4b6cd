"""Where configuration comes from: arguments, then the environment, then a file, then the defaults."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierpool._core import ConfigError
from tierpool.config import PoolConfig, canonical

if TYPE_CHECKING:
    from collections.abc import Callable

LOGGER = logging.getLogger("tierpool")
CONFIG_VARIABLE = "TIERPOOL_CONFIG"
LOG_LEVEL_VARIABLE = "TIERPOOL_LOG_LEVEL"
DISABLE_VARIABLE = "TIERPOOL_DISABLE"
NO_RESIDENCY_VARIABLE = "TIERPOOL_NO_RESIDENCY"

_LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")
_SWITCHES = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "": False,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _load_yaml(path: Path) -> object:
    import yaml  # noqa: PLC0415  (only who reads a file pays for it)

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}; check the path") from error
    try:
        return yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        before = data[: error.position]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(f"{path}, line {line}, column {column}: not valid YAML: {error.reason}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _section(parent: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    section = parent.get(key)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{key} must be a section with keys of its own, got {type(section).__name__} {section!r}")
    return section


def _from_document(document: Mapping[Any, Any]) -> dict[str, Any]:
    """Pool settings of a document in the guide's shape; whatever else it holds is left alone."""
    optimizations = _section(document, "metal_optimizations")
    if "memory_pool" in document:
        LOGGER.warning("memory_pool is not read at the top level: it belongs under metal_optimizations")
    settings = canonical(_section(optimizations, "memory_pool"))
    switch = optimizations.get("enabled", True)
    if not isinstance(switch, bool):
        raise TypeError(f"metal_optimizations.enabled must be true or false, got {type(switch).__name__} {switch!r}")
    if not switch:
        settings["enabled"] = False
    return settings


def settings_of_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Pool settings of a dict: of the pool's own keys, or of the guide's whole nested shape."""
    return _from_document(mapping) if "metal_optimizations" in mapping else canonical(mapping)


def settings_of_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Pool settings of a YAML file in the guide's shape.

    Raises
    ------
    ConfigError
        When the file cannot be read, is not valid YAML (with line and column), or holds a value that
        cannot be used.
    TypeError
        When it holds a value of a wrong type.
    """
    file = Path(path)
    document = _load_yaml(file)

    def settings() -> dict[str, Any]:
        if document is not None and not isinstance(document, Mapping):
            raise ConfigError(f"the file must hold sections such as metal_optimizations, got {type(document).__name__}")
        found = _from_document(document or {})
        PoolConfig(**found).checked()
        return found

    return _naming(str(file), settings)


def _naming(source: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `read`; its errors say where the value came from."""
    try:
        return read()
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{source}: {error}") from error


def _switch(variable: str, what: str) -> bool:
    value = os.environ.get(variable, "").strip().lower()
    if value not in _SWITCHES:
        raise ConfigError(f"{variable} is {value!r}; set it to 1 to switch {what} off, or to 0")
    return _SWITCHES[value]


def is_disabled() -> bool:
    """Whether the environment switches every pool off."""
    return _switch(DISABLE_VARIABLE, "pools")


def is_residency_off() -> bool:
    """Whether the environment switches the locking of registered memory off."""
    return _switch(NO_RESIDENCY_VARIABLE, "the locking of registered memory")


def apply_log_level() -> None:
    """Give the logger "tierpool" the level that the environment names, if it names one.

    A name that `logging` does not have is reported there and changes nothing: an import should not fail for it.
    """
    name = os.environ.get(LOG_LEVEL_VARIABLE, "").strip().upper()
    if name in _LEVELS:
        LOGGER.setLevel(name)
    elif name:
        LOGGER.error("%s is %r, which is no level; set it to one of %s", LOG_LEVEL_VARIABLE, name, ", ".join(_LEVELS))


def resolve(
    config: PoolConfig | Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
    file: str | os.PathLike[str] | None = None,
) -> PoolConfig:
    """Bring all sources together into one checked configuration.

    Parameters
    ----------
    config : PoolConfig, mapping or None
        A `PoolConfig` is complete: no file adds to it. A mapping is.
    overrides : mapping
        Keywords; they win over everything but `TIERPOOL_DISABLE`.
    file : path, optional
        A YAML file; without one, `TIERPOOL_CONFIG` may name it.
    """
    overrides = canonical(overrides)
    if isinstance(config, PoolConfig):
        resolved = copy.deepcopy(config)
        for key, value in overrides.items():
            setattr(resolved, key, value)
    else:
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"config must be a PoolConfig or a dict, got {type(config).__name__}")
        source = file if file is not None else os.environ.get(CONFIG_VARIABLE)
        from_file = settings_of_file(source) if source else {}
        resolved = PoolConfig(**{**from_file, **settings_of_mapping(config or {}), **overrides})
    if is_disabled():
        resolved.enabled = False
    return resolved.checked()
