"""The quantization part of a report as a section."""

from edgekit.report.modules_view import module_blocks
from edgekit.report.numbers import ABSENT, human_size, median_with_interval, milliseconds, percent
from edgekit.report.quantization import AccuracyChange, QuantizationPart, SchemeGroup, SchemeRow
from edgekit.report.quantization_plots import Point, front_plot
from edgekit.report.sections import Block, Cell, Figure, Panel, Section, Table, Text, Tone, text_cell

_HINT = "Point at a dot, tap it, or reach it with the Tab key: its row appears here."


def quantization_section(part: QuantizationPart) -> Section:
    """Files beside each other, what to ship, why not faster, then the model by module."""
    blocks: list[Block] = []
    if part.remarks:
        blocks.append(Text(sentences=part.remarks, as_list=len(part.remarks) > 1, tone="warn"))
    for group in part.groups:
        blocks += _group_blocks(group, several=len(part.groups) > 1)
    if part.modules:
        blocks += module_blocks(part.modules)
    return Section(key="quantization", title="Quantization", blocks=tuple(blocks))


def _group_blocks(group: SchemeGroup, *, several: bool) -> list[Block]:
    named = f"{group.model} ({group.model_sha256[:8]})" if several else group.model
    blocks: list[Block] = []
    if group.advice:
        blocks.append(Text(sentences=_advice(group, f"{named}: " if several else ""), as_list=len(group.advice) > 1))
    writes = any(row.written for row in group.rows)
    blocks += [writing_summary(group, named) if writes else _summary_table(group, named), *_front_figures(group, named)]
    if group.slow:
        blocks.append(
            Text(sentences=tuple(f"Why not faster: {each.subject}: {each.text}" for each in group.slow), as_list=True)
        )
    blocks += [
        Panel(title=f"Time by kind of operator: {named}", blocks=tables) for tables in (_times(group),) if tables
    ]
    changed = tuple(_changed_table(row) for row in group.rows if row.changed_texts)
    if changed:
        blocks.append(Panel(title=f"Texts whose label changed: {named}", blocks=changed))
    return blocks


def _advice(group: SchemeGroup, prefix: str) -> tuple[str, ...]:
    """What to ship; with its target where there are several."""
    targets = len(group.advice) > 1
    return tuple(
        f"{prefix}{each.evidence['target']}: {each.text}" if targets else f"{prefix}{each.text}"
        for each in group.advice
    )


def _summary_table(group: SchemeGroup, named: str) -> Table:
    headers = (
        "bundle",
        "target",
        "scheme",
        "size",
        "accuracy",
        "change (95 %)",
        "labels changed",
        "latency",
        "parity",
        "notes",
    )
    evaluated = dict.fromkeys(row.parity.evaluated for row in group.rows if row.parity and row.parity.evaluated)
    return Table(
        title=f"{named}: target × scheme",
        headers=headers,
        rows=tuple(_summary_row(group, row) for row in sorted(group.rows, key=lambda row: _place(group, row))),
        note=f"Test set: {group.texts}. Parity: whether answers are within their scheme's tolerance. "
        "The change is from the source model, in percentage points, with the paired "
        "interval on the same texts. Latency: median of one text on this host, with the interval of the median."
        + "".join(f" Evaluated: {text}." for text in evaluated),
    )


def writing_summary(group: SchemeGroup, named: str) -> Table:
    """The files of a model that writes: what they wrote when they were proven, beside what its source wrote."""
    scores = ("texts equal", "tokens equal", "bits per byte (change)", "chrF")
    evaluated = dict.fromkeys(row.parity.evaluated for row in group.rows if row.parity and row.parity.evaluated)
    return Table(
        title=f"{named}: target × scheme",
        headers=("bundle", "target", "scheme", "size", *scores, "time per token", "parity", "notes"),
        rows=tuple(_writing_row(group, row) for row in sorted(group.rows, key=lambda row: _place(group, row))),
        note=f"Written greedily when each file was proven, after {group.texts}; tokens are equal where the source's "
        "stand at the same place of the same text. Bits per byte and chrF are of held-out texts, the change from the "
        "source model. Time per token: the median on this host, with its interval."
        + "".join(f" Evaluated: {text}." for text in evaluated),
    )


def _writing_row(group: SchemeGroup, row: SchemeRow) -> tuple[Cell, ...]:
    found, latency = row.written, row.latency
    scores, before = (found.scores, found.reference_scores) if found else (None, None)
    bits = f"{scores.bits_per_byte:.4f}" if scores else ABSENT
    if scores and before:
        bits += f" ({100 * (scores.bits_per_byte / before.bits_per_byte - 1):+.2f} %)"
    chrf = scores.chrf if scores else None
    share = found.tokens_equal / max(1, found.tokens) if found else None
    return (
        text_cell(row.bundle),
        text_cell(row.target),
        text_cell(row.scheme),
        Cell(text=human_size(row.size_bytes), sort=row.size_bytes),
        Cell(text=f"{found.texts_equal} of {found.prompts}", sort=found.texts_equal) if found else text_cell(ABSENT),
        Cell(text=ABSENT if share is None else percent(share, 1), sort=share),
        Cell(text=bits, sort=scores.bits_per_byte if scores else None),
        Cell(text=ABSENT if chrf is None else f"{chrf:.1f}", sort=chrf),
        Cell(text=median_with_interval(latency) if latency else ABSENT, sort=latency.p50_ms if latency else None),
        _parity_cell(row),
        text_cell("; ".join(_remarks(group, row))),
    )


def _place(group: SchemeGroup, row: SchemeRow) -> tuple[int, int]:
    """Rows of one target together, the largest first."""
    targets = list(dict.fromkeys(each.target for each in group.rows))
    return targets.index(row.target), -row.size_bytes


def _summary_row(group: SchemeGroup, row: SchemeRow) -> tuple[Cell, ...]:
    parity, accuracy, latency = row.parity, row.accuracy, row.latency
    changed = parity.labels_changed if parity else None
    return (
        text_cell(row.bundle),
        text_cell(row.target),
        text_cell(row.scheme),
        Cell(text=human_size(row.size_bytes), sort=row.size_bytes),
        Cell(text=percent(accuracy.accuracy, 2) if accuracy else ABSENT, sort=accuracy.accuracy if accuracy else None),
        Cell(text=change_text(accuracy) if accuracy else ABSENT, sort=accuracy.change_points if accuracy else None),
        Cell(text=ABSENT if changed is None or not parity else f"{changed} of {parity.steps}", sort=changed),
        Cell(text=median_with_interval(latency) if latency else ABSENT, sort=latency.p50_ms if latency else None),
        _parity_cell(row),
        text_cell("; ".join(_remarks(group, row))),
    )


def _remarks(group: SchemeGroup, row: SchemeRow) -> list[str]:
    remarks = ["on the front"] if row.bundle in group.front else []
    if row.measurement and row.measurement.verdict != "valid":
        remarks.append(f"latency is {row.measurement.verdict}")
    if row.parity and row.parity.evaluated:
        remarks.append("evaluated")
    return [*remarks, *(["see above"] if row.note else [])]


def _parity_cell(row: SchemeRow) -> Cell:
    if row.parity is None:
        return text_cell("not measured", "warn")
    tones: dict[str, Tone] = {"within-tolerance": "good", "failed": "bad", "not-run": "warn"}
    words = {"within-tolerance": "within", "failed": "FAILED", "not-run": "not run here"}
    return text_cell(words[row.parity.verdict], tones[row.parity.verdict])


def change_text(change: AccuracyChange) -> str:
    """A change of accuracy in points with its interval: -0.33 (-1.24 to +0.59)."""
    return f"{change.change_points:+.2f} ({change.low_points:+.2f} to {change.high_points:+.2f})"


def row_text(row: SchemeRow) -> str:
    """A row in one sentence, as a dot of the plot shows it."""
    parts = [f"{row.bundle}: {human_size(row.size_bytes)}"]
    if row.accuracy:
        parts.append(f"accuracy {percent(row.accuracy.accuracy)}, change {change_text(row.accuracy)} points")
    if row.written:
        parts.append(f"{row.written.tokens_equal} of {row.written.tokens} tokens the source's")
    elif row.parity and row.parity.labels_changed is not None:
        parts.append(f"{row.parity.labels_changed} of {row.parity.steps} labels changed")
    if row.latency:
        parts.append(f"p50 {median_with_interval(row.latency)}")
    return ", ".join(parts)


def _front_figures(group: SchemeGroup, named: str) -> list[Block]:
    """Accuracy over size, and over latency where it was measured; without labels, agreement takes accuracy's place."""
    figures: list[Block] = []
    for what, unit in (("size", "size, MB"), ("latency", "latency on this host, ms")):
        points = [point for row in group.rows if (point := _point(row, what, row.bundle in group.front))]
        if len(points) > 1:
            labelled = any(row.accuracy for row in group.rows)
            kept = "tokens equal, %" if any(row.written for row in group.rows) else "labels unchanged, %"
            name = "accuracy change, points" if labelled else kept
            figures.append(
                Figure(
                    title=f"{named}: {name.split(',')[0]} by {what}",
                    svg=front_plot(points, x_unit=unit, y_name=name, label=f"{name} by {unit}"),
                    caption="Green: nothing beats it in size, latency and accuracy at once. Upright: 95 % intervals.",
                    hint=_HINT,
                )
            )
    return figures


def _point(row: SchemeRow, what: str, on_front: bool) -> Point | None:
    cost = row.size_bytes / 1e6 if what == "size" else row.latency.p50_ms if row.latency else None
    if cost is None or not row.usable or not row.parity:
        return None
    if row.accuracy:
        a = row.accuracy
        y, low, high = a.change_points, min(a.low_points, a.change_points), max(a.high_points, a.change_points)
    elif row.written:
        y = low = high = 100 * row.written.tokens_equal / max(1, row.written.tokens)
    else:
        y = low = high = 100 * (1 - (row.parity.labels_changed or 0) / max(1, row.parity.steps))
    return Point(name=row.bundle, x=cost, y=y, low=low, high=high, tip=row_text(row), on_front=on_front)


def _changed_table(row: SchemeRow) -> Table:
    return Table(
        title=row.bundle,
        headers=("text", "true label", "from", "to", "margin before", "margin after"),
        rows=tuple(
            (
                text_cell(each.text),
                text_cell(each.truth or ABSENT),
                text_cell(each.from_label),
                text_cell(each.to_label),
                Cell(text=f"{each.from_margin:.3f}", sort=each.from_margin),
                Cell(text=f"{each.to_margin:.3f}", sort=each.to_margin),
            )
            for each in row.changed_texts
        ),
        note="Margin: the largest logit less the second, in the source model and in the file.",
    )


def _times(group: SchemeGroup) -> tuple[Block, ...]:
    """Time by kind of operator of each sentence's float32 and quantized file, beside each other."""
    return tuple(
        Table(
            title=f"{each.subject} beside {each.evidence['float_bundle']}",
            headers=("operator", "float32", each.evidence["scheme"], "difference"),
            rows=tuple(
                (
                    text_cell(kind),
                    *(Cell(text=milliseconds(ms), sort=ms) for ms in (a, b)),
                    Cell(text=f"{b - a:+.4f} ms", sort=b - a),
                )
                for kind, a, b in each.evidence["kinds"]
            ),
            note="Of one inference, by the runtime's own profile.",
        )
        for each in group.slow
        if each.evidence.get("kinds")
    )
