"""From messages to a prompt, by the template that the model's file brings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tierpool.storage.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierpool.storage.engine import Engine

_TEMPLATE = "tokenizer.chat_template"


def render_messages(engine: Engine, messages: Sequence[Mapping[str, Any]]) -> str:
    """Write messages the way the model was taught, up to where its answer begins.

    Raises
    ------
    ModelError
        When the file has no template, or one that does not work with these messages.
    ImportError
        When llama-cpp-python is missing, whose template reader is used.
    ValueError
        When there are no messages, or one lacks its role.
    """
    _check(messages)
    path, template = engine.plan.path, engine.metadata.get(_TEMPLATE)
    if not template:
        raise ModelError(f"{path} has no chat template ({_TEMPLATE}): write the prompt yourself, and call generate")
    try:
        formats: Any = importlib.import_module("llama_cpp.llama_chat_format")
    except ImportError as error:
        raise ImportError(f"chat templates need llama-cpp-python: pip install 'tierpool[llama]' ({error})") from error
    plain = [dict(message) for message in messages]
    begin, end = _mark(engine, "bos"), _mark(engine, "eos")
    try:
        return str(formats.Jinja2ChatFormatter(template, eos_token=end, bos_token=begin)(messages=plain).prompt)
    except Exception as error:  # a template is a program from the file: it may raise anything
        raise ModelError(f"the chat template of {path} does not accept these messages: {error}") from error


def _mark(engine: Engine, mark: str) -> str:
    """The token that begins or ends a text, as the vocabulary writes it; empty where the file names none."""
    token = engine.metadata.get(f"tokenizer.ggml.{mark}_token_id", "")
    return engine.token_text(int(token)) if token.isdecimal() else ""


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise ValueError("messages is empty: a chat begins with at least one, such as {'role': 'user', 'content': ...}")
    for number, message in enumerate(messages):
        for key in ("role", "content"):
            if key not in message:
                raise ValueError(f"message {number} has no {key!r}: write {{'role': ..., 'content': ...}}")
