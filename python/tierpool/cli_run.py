"""The command ``run``: text from a model, within a budget."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierpool._core import ConfigError, TierpoolError
from tierpool.cli_output import INTERRUPTED, Json, one_line_errors, print_json, progress_bar
from tierpool.cli_storage import Context, Memory, ModelFile, Threads
from tierpool.config_values import byte_limit
from tierpool.storage.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierpool.storage.generation import Generation
    from tierpool.storage.language_model import LanguageModel
    from tierpool.storage.model_statistics import ModelStatistics

commands = typer.Typer()

_MIB = 2**20


@commands.command()
def run(  # noqa: PLR0913, PLR0917  (one argument an option)
    model: ModelFile,
    prompt: Annotated[str | None, typer.Option(help="A text to continue, as it stands.")] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="A conversation by the file's chat template, a line a message.")
    ] = False,
    memory: Memory = None,
    context: Context = 4096,
    threads: Threads = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens to generate; by default no limit.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only that many most probable tokens; 0: all.")] = 40,
    top_p: Annotated[float, typer.Option(help="Only tokens that together reach this probability; 1: all.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Only tokens this probable beside the most probable; 0: all.")] = 0.05,
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal texts.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt, or hold a conversation, while the process stays within its memory.

    Ctrl-C ends the answer; a second one, or Ctrl-D, ends a conversation.
    """
    if (prompt is None) != interactive:
        raise typer.BadParameter("give either --prompt TEXT or --interactive")
    settings: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "stop": tuple(stop or ()),
    }
    with one_line_errors(), _user_errors():
        # Checked here, where the option has its own name.
        limit_bytes = byte_limit("--memory", memory)
        with progress_bar() as progress:
            loaded = load(model, limit_bytes, context, threads, progress=progress)
        with loaded:
            session = _Session(loaded, settings, as_json)
            if prompt is None:
                session.converse()
            elif not session.answer(loaded.generate(prompt, **settings)).complete:
                raise typer.Exit(INTERRUPTED)


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turn a setting out of range into an error of the command line, and Ctrl-C into its message and exit code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("tierpool: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except TierpoolError:
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the input is no text: byte {error.object[error.start]:#x} is not valid {error.encoding}; convert it first"
        ) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


@dataclass(frozen=True)
class _Answer:
    """What a generation gave; incomplete after Ctrl-C."""

    text: str
    complete: bool


class _Session:
    """Shows generations as they come, and what they took."""

    def __init__(self, model: LanguageModel, settings: dict[str, Any], as_json: bool) -> None:
        self._model, self._settings, self._as_json = model, settings, as_json

    def answer(self, generation: Generation) -> _Answer:
        """Print pieces as they come and one line of statistics, or all of it as JSON."""
        pieces: list[str] = []
        try:
            for piece in generation:
                pieces.append(piece)
                if not self._as_json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            generation.close()
        text = "".join(pieces)
        statistics = self._model.get_statistics()
        if self._as_json:
            print_json(
                {
                    "text": text,
                    "finish_reason": generation.finish_reason,
                    "prompt_tokens": len(generation.prompt),
                    "tokens": len(generation.tokens),
                    "statistics": statistics.to_dict(),
                    "layers": [asdict(layer) for layer in self._model.get_layer_statistics()],
                }
            )
        else:
            typer.echo()
            if generation.finish_reason == "cancelled":
                typer.echo("tierpool: stopped", err=True)
            typer.echo(_line(statistics), err=True)
        return _Answer(text, generation.finish_reason != "cancelled")

    def converse(self) -> None:
        """Answer line by line until the input ends."""
        messages: list[dict[str, str]] = []
        while True:
            if sys.stdin.isatty():
                sys.stderr.write("> ")
                sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                return
            if not line.strip():
                continue
            messages.append({"role": "user", "content": line.rstrip("\n")})
            answer = self.answer(self._model.chat(messages, **self._settings))
            messages.append({"role": "assistant", "content": answer.text})


def _line(statistics: ModelStatistics) -> str:
    """One line about everything since load."""
    prompt, generation = statistics.prompt, statistics.generation
    parts = [
        f"prompt {prompt.tokens:,} tokens, {prompt.tokens_per_second:,.1f} tok/s",
        f"generated {generation.tokens:,}, {generation.tokens_per_second:,.2f} tok/s",
    ]
    if generation.requested_bytes:
        parts += [
            f"{generation.bytes_per_token / _MIB:,.1f} MiB/token read at {generation.read_gb_per_second:,.2f} GB/s",
            f"hit rate {generation.hit_rate:.2f}",
        ]
    parts.append(f"peak {statistics.peak_bytes / _MIB:,.0f} of {statistics.budget_bytes / _MIB:,.0f} MiB")
    return "tierpool: " + "; ".join(parts)
