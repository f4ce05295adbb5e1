"""A checkpoint by module: heat map, ranges, and why."""

from collections.abc import Sequence

from edgekit.report.numbers import ABSENT, percent, significant
from edgekit.report.quantization import Module, ModuleCost, ModulesPart
from edgekit.report.quantization_plots import Heat, heat_plot
from edgekit.report.sections import Block, Cell, Figure, Panel, Table, Text, text_cell

_MOST = 40  # modules in sight; a page with more of them keeps the rest in a panel
_HINT = "Point at a cell or tap it: what was measured appears here; the table has the same."


def module_blocks(part: ModulesPart) -> list[Block]:
    """Why first, then the most costly modules as a map, then all numbers."""
    blocks: list[Block] = []
    if part.remarks:
        blocks.append(Text(sentences=part.remarks, as_list=len(part.remarks) > 1, tone="warn"))
    if part.why:
        blocks.append(Text(sentences=tuple(f"Why {each.subject}: {each.text}" for each in part.why), as_list=True))
    if part.headroom:
        blocks.append(Text(sentences=tuple(f"{each.subject}: {each.text}" for each in part.headroom), as_list=True))
    ordered = sorted(part.modules, key=lambda module: -_worst(module))
    many = len(ordered) > _MOST
    shown = {module.name for module in ordered[:_MOST]}
    in_sight = [module for module in part.modules if module.name in shown]
    if part.schemes and in_sight:
        named = f"the {_MOST} most costly of {len(ordered)} modules" if many else "each module"
        blocks.append(_heat_figure(part, in_sight, f"{part.model}, {part.target}: what quantizing {named} alone costs"))
    tables = (_ranges_table(part, in_sight), *([_costs_table(part, in_sight)] if part.schemes else []))
    blocks += tables
    if many:
        rest = [module for module in part.modules if module.name not in shown]
        others = (_ranges_table(part, rest), *([_costs_table(part, rest)] if part.schemes else []))
        blocks.append(Panel(title=f"The other {len(rest)} modules", blocks=others))
    return blocks


def _worst(module: Module) -> float:
    if any(cost.non_finite or cost.error for cost in module.costs):
        return float("inf")
    return max((cost.kl or 0.0 for cost in module.costs), default=0.0)


def _cost(module: Module, scheme: str) -> ModuleCost | None:
    return next((cost for cost in module.costs if cost.scheme == scheme), None)


def _heat_figure(part: ModulesPart, modules: Sequence[Module], title: str) -> Figure:
    darkest = max((cost.kl or 0.0 for module in part.modules for cost in module.costs), default=0.0) or 1.0
    rows = [[_heat(module, _cost(module, scheme), darkest) for scheme in part.schemes] for module in modules]
    svg = heat_plot([module.name for module in modules], part.schemes, rows, title)
    caption = f"Kullback-Leibler divergence from the source model in nats, on {part.texts}; stronger colours cost more."
    return Figure(title=title, svg=svg, caption=caption, hint=_HINT)


def _heat(module: Module, cost: ModuleCost | None, darkest: float) -> Heat:
    if cost is None:
        return Heat(value=None, text=ABSENT, tip=f"{module.name}: nothing to quantize in this scheme")
    if cost.error or cost.non_finite:
        return Heat(
            value=1.0, text="NaN" if cost.non_finite else "failed", tip=f"{module.name}: {_told(cost)}", bad=True
        )
    return Heat(value=(cost.kl or 0.0) / darkest, text=f"{cost.kl or 0.0:.1e}", tip=f"{module.name}: {_told(cost)}")


def _told(cost: ModuleCost) -> str:
    if cost.error:
        return f"{cost.scheme} failed: {cost.error}"
    if cost.non_finite:
        return f"{cost.scheme} gives {cost.non_finite} values that are NaN or infinite"
    snr = ABSENT if cost.snr_db is None else f"{cost.snr_db:.1f} dB"
    return (
        f"{cost.scheme}: KL {cost.kl or 0.0:.2e} nats, SNR {snr}, {cost.labels_changed} of {cost.texts} labels changed"
    )


def _costs_table(part: ModulesPart, modules: Sequence[Module]) -> Table:
    rows = []
    for module in modules:
        for cost in module.costs:
            drop = None if cost.drop_points is None else -cost.drop_points
            failed = cost.error or ("NaN or infinity" if cost.non_finite else "")
            rows.append(
                (
                    text_cell(module.name),
                    text_cell(cost.scheme),
                    Cell(text=failed or f"{cost.kl or 0.0:.2e}", sort=float("1e300") if failed else cost.kl or 0.0),
                    Cell(text=ABSENT if cost.snr_db is None else f"{cost.snr_db:.1f} dB", sort=cost.snr_db),
                    Cell(text=ABSENT if drop is None else f"{drop:+.2f}", sort=drop),
                    Cell(text=f"{cost.labels_changed} of {cost.texts}", sort=cost.labels_changed),
                )
            )
    return Table(
        title="Each module quantized alone",
        headers=("module", "scheme", "KL, nats", "SNR", "accuracy, points", "labels changed"),
        rows=tuple(rows),
        note=f"{part.target}, on {part.texts}.",
    )


def _ranges_table(part: ModulesPart, modules: Sequence[Module]) -> Table:
    return Table(
        title=f"{part.model} by module",
        headers=(
            "module", "weights", "of bytes", "of time", "weight range", "widest channel", "× median",
            "fixed by channel scales", "activations", "widest channel in", "× median in", "fp16 headroom",
        ),
        rows=tuple(_ranges_row(module) for module in modules),
        note="Channels of weights are outputs, those of activations are what comes in. Fixed by channel scales: the "
        "share of int8's squared error with one scale that a scale for each channel takes away, by quantizing this "
        "weight both ways. fp16 headroom: 65504 over the largest value that float16 must hold there (squares in norms, "
        f"scores in softmax). {part.times}".rstrip(),
    )  # fmt: skip


def _ranges_row(module: Module) -> tuple[Cell, ...]:
    w, a = module.weight, module.activation
    none = Cell(text=ABSENT)
    return (
        text_cell(module.name),
        Cell(text=f"{module.elements:,}", sort=module.elements),
        Cell(text=percent(module.share_of_bytes), sort=module.share_of_bytes),
        Cell(text=percent(module.share_of_time), sort=module.share_of_time)
        if module.share_of_time is not None
        else none,
        text_cell(_span(w.low, w.high) if w else ABSENT),
        Cell(text=str(w.outlier_channel), sort=w.outlier_channel) if w else none,
        Cell(text=significant(w.outlier_ratio), sort=w.outlier_ratio) if w else none,
        Cell(text=percent(w.channels_fix), sort=w.channels_fix) if w else none,
        text_cell(_span(a.low, a.high) if a else ABSENT),
        Cell(text=str(a.outlier_channel), sort=a.outlier_channel) if a else none,
        Cell(text=significant(a.outlier_ratio), sort=a.outlier_ratio) if a else none,
        Cell(text=f"{significant(a.headroom)}×", sort=a.headroom) if a and a.headroom is not None else none,
    )


def _span(low: float, high: float) -> str:
    return f"{significant(low)} to {significant(high)}"
