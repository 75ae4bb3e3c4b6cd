"""The commands about models larger than memory: ``profile``, ``inspect`` and ``plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierpool.cli_output import Json, new_console, one_line_errors, print_json
from tierpool.cli_storage_tables import show_model, show_plan, show_profile
from tierpool.storage.errors import ModelError
from tierpool.storage.gguf import read_model
from tierpool.storage.hyperparameters import read_hyperparameters
from tierpool.storage.loading import make_plan
from tierpool.storage.profile import Profile, measure_profile
from tierpool.storage.roles import role_of
from tierpool.storage.streaming import find_streaming

if TYPE_CHECKING:
    from tierpool.storage.gguf import Model

commands = typer.Typer()

ModelFile = Annotated[Path, typer.Argument(help="A GGUF file; of a model in shards, any of them.")]
Memory = Annotated[
    str | None, typer.Option(help="What the process may hold, such as 2GiB; by default what the system allows.")
]
Context = Annotated[int, typer.Option(min=1, help="Positions of the KV cache.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that compute; by default all processors.")]


@commands.command()
def profile(
    file: Annotated[Path, typer.Argument(help="A large file on the disk to measure, best the model itself.")],
    as_json: Json = False,
) -> None:
    """Measure direct reads of a file, memory bandwidth and limits. Takes two seconds."""
    with one_line_errors():
        measured = measure_profile(file)
        if as_json:
            print_json(measured.to_dict())
        else:
            show_profile(new_console(), measured)


@commands.command()
def inspect(model: ModelFile, as_json: Json = False) -> None:
    """Show what is in a model: sizes, roles of its tensors, and whether it can be streamed."""
    with one_line_errors():
        contents = _contents(read_model(model))
        if as_json:
            print_json(contents)
        else:
            show_model(new_console(), contents)


@commands.command()
def plan(  # noqa: PLR0913, PLR0917  (one argument an option)
    model: ModelFile,
    memory: Memory = None,
    context: Context = 4096,
    threads: Threads = None,
    measured: Annotated[
        Path | None, typer.Option("--profile", help="What 'tierpool profile --json' printed, instead of measuring.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide which weights stay in memory and which are streamed, and say why. Loads nothing."""
    with one_line_errors():
        profile = _read_profile(measured) if measured else None
        made = make_plan(model, memory, context, threads, profile=profile, memory_name="--memory")
        if as_json:
            print_json(made.to_dict())
        else:
            show_plan(new_console(), made)


def _contents(model: Model) -> dict[str, Any]:
    sizes = read_hyperparameters(model)
    streaming = find_streaming(model, sizes)
    return {
        "architecture": model.architecture,
        "files": [{"path": file.path, "size_bytes": file.size_bytes} for file in model.files],
        "weight_bytes": model.weight_bytes,
        "layers": sizes.layers,
        "embedding": sizes.embedding,
        "vocabulary": sizes.vocabulary,
        "experts": sizes.experts,
        "used_experts": sizes.used_experts,
        "streaming": "none" if isinstance(streaming, str) else streaming.mode,
        "units": 0 if isinstance(streaming, str) else len(streaming.units),
        "slot_bytes": 0 if isinstance(streaming, str) else streaming.slot_bytes,
        "reason": streaming if isinstance(streaming, str) else "",
        "tensors": [
            {
                "name": tensor.name,
                "role": role_of(tensor.name).value,
                "type": tensor.type_name,
                "shape": list(tensor.shape),
                "file": tensor.file_index,
                "offset_bytes": tensor.offset_bytes,
                "size_bytes": tensor.size_bytes,
                "streamed": not isinstance(streaming, str) and tensor.name in streaming.tensor_names,
            }
            for tensor in model.tensors
        ],
    }


def _read_profile(path: Path) -> Profile:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error}); write it with: tierpool profile FILE --json") from error
    try:
        return Profile.from_dict(values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
