"""How the command line shows profiles, models and plans."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

_MIB = 2**20
_GB = 1e9


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f}"


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def _by_kind(title: str, columns: tuple[str, str], rows: Iterable[tuple[str, str, int]]) -> Table:
    """Count tensors and add up their bytes by two properties."""
    totals: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for first, second, size_bytes in rows:
        totals[first, second].append(size_bytes)
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    for column in ("tensors", "MiB"):
        table.add_column(column, justify="right")
    for (first, second), sizes in sorted(totals.items()):
        table.add_row(first, second, f"{len(sizes):,}", _mib(sum(sizes)))
    return table


def show_profile(console: Console, profile: Profile) -> None:
    """Print what was measured."""
    budget_bytes, source = profile.limits.budget()
    rows = [
        ("reads of 1 MiB, 4 in flight", f"{profile.read_bytes_per_second / _GB:,.2f} GB/s"),
        ("reads of 1 MiB, 1 in flight", f"{profile.read_bytes_per_second_single / _GB:,.2f} GB/s"),
        ("past the page cache", "yes" if profile.direct_reads else "no: too high if pages were cached"),
        ("memory bandwidth", f"{profile.memory_bytes_per_second / _GB:,.1f} GB/s"),
        ("processors", f"{profile.limits.cores}"),
        (f"memory ({source})", f"{_mib(budget_bytes)} MiB"),
        ("mappings (vm.max_map_count)", f"{profile.limits.max_mappings:,}"),
    ]
    console.print(_pairs("Profile", rows))


def show_model(console: Console, contents: dict[str, Any]) -> None:
    """Print what is in a model."""
    rows = [
        ("architecture", contents["architecture"]),
        *(("file", f"{file['path']}, {_mib(file['size_bytes'])} MiB") for file in contents["files"]),
        ("weights", f"{_mib(contents['weight_bytes'])} MiB"),
        ("layers", f"{contents['layers']}"),
        ("embedding", f"{contents['embedding']:,}"),
        ("vocabulary", f"{contents['vocabulary']:,}"),
    ]
    if contents["experts"]:
        rows.append(("experts", f"{contents['used_experts']} of {contents['experts']} in a layer"))
    streaming = f"{contents['units']:,} {contents['streaming']} of {_mib(contents['slot_bytes'])} MiB"
    rows.append(("can be streamed", f"no: {contents['reason']}" if contents["reason"] else streaming))
    console.print(_pairs("Model", rows))
    tensors = ((tensor["role"], tensor["type"], tensor["size_bytes"]) for tensor in contents["tensors"])
    console.print(_by_kind("Tensors", ("role", "type"), tensors))


def show_plan(console: Console, plan: Plan) -> None:
    """Print a plan and its reasons."""
    for reason in plan.reasons:
        console.print(reason, markup=False)
    rows = [
        ("mode", plan.mode),
        ("n_ubatch, threads, context", f"{plan.n_ubatch}, {plan.threads}, {plan.context:,}"),
        ("expected tokens per second", f"{plan.estimate.tokens_per_second:,.2f}"),
        ("bound by", plan.estimate.bound),
        ("read per token", f"{_mib(plan.estimate.read_bytes)} MiB"),
        ("computed per token", f"{_mib(plan.estimate.computed_bytes)} MiB"),
    ]
    if plan.mode != "resident":
        rows[1:1] = [("slots", f"{plan.slots:,} of {_mib(plan.slot_bytes)} MiB for {plan.units:,} {plan.mode}")]
    console.print(_pairs("Plan", rows))
    budget = plan.budget
    purposes = [(purpose, f"{_mib(size_bytes)} MiB") for purpose, size_bytes in budget.purposes.items()]
    unused = ("unused", f"{_mib(budget.unused_bytes)} MiB")
    console.print(_pairs(f"Memory: {_mib(budget.limit_bytes)} MiB ({escape(budget.source)})", [*purposes, unused]))
    placements = ((placed.role.value, placed.tier, placed.size_bytes) for placed in plan.placements)
    console.print(_by_kind("Tensors", ("role", "tier"), placements))
