"""What was measured, as a Markdown table for docs/PERFORMANCE.md."""
import json

MARKS = ("<!-- measured: written by tests/bench/run -->\n", "<!-- end of measured -->\n")
SHARE_NAMES = {"int8": "of the int8 peak", "bandwidth": "of the read bandwidth", "limit": "of the limit"}


def number(x):
    return "-" if x is None else f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def share(row):
    return f"{100 * row['share']:.0f} % {SHARE_NAMES[row['share_of']]}" if row.get("share") else "-"


def ratio(row):
    if not row.get("peer") or not row.get("ours"):
        return "-"
    return f"{row['ours'] / row['peer']:.2f}" if row.get("more_is_better", True) else f"{row['peer'] / row['ours']:.2f}"


def markdown(rows):
    lines = ["| model | what | nunchi | llama.cpp | ratio | share of what the machine can do |", "|---|---|---|---|---|---|"]
    last = None  # a model's name stands once
    for r in rows:
        unit = "" if r["unit"] == "tok/s" else f" {r['unit']}"
        lines.append(f"| {r['model'] if r['model'] != last else '…'} | {r['what']} | {number(r['ours'])}{unit} | "
                     f"{number(r['peer'])}{unit if r['peer'] is not None else ''} | {ratio(r)} | {share(r)} |")
        last = r["model"]
    return "\n".join(lines)


def limits(found):
    lines = []
    for isa, l in sorted(found.items()):
        what = f"{isa}: reads {l['read_gb_s']:.0f} GB/s"
        if l.get("int8_gop_s"):
            what += f", {l['int8_gop_s']:.0f} GOP/s of int8 dot products, {l['float_gop_s']:.0f} GFLOP/s of float32"
        lines.append(what)
    return "; ".join(lines)


def whole(folder, parts):
    """The table of every part that was ever measured here."""
    text = []
    for part in parts:
        path = folder / f"{part}.json"
        if not path.exists():
            continue
        kept = json.loads(path.read_text(encoding="utf-8"))
        disturbed = sum(o > 0.03 for r in kept["rows"] for side in (r.get("others") or {}).values() for o in side)
        text.append(f"**{part}** ({kept['at']}; {kept['machine']['processors']} processors of {kept['machine']['cpu']}"
                    + (f"; at most, {limits(kept['limits'])}" if kept["limits"] else "")
                    + (f"; {disturbed} runs were disturbed" if disturbed else "") + ")\n\n" + markdown(kept["rows"]) + "\n")
    return "\n".join(text)


def between_marks(page, text):
    head, _, rest = page.partition(MARKS[0])
    _, mark, tail = rest.partition(MARKS[1])
    if not mark:
        raise ValueError("the page has no marks for the tables: " + " ".join(m.strip() for m in MARKS))
    return head + MARKS[0] + "\n" + text + "\n" + MARKS[1] + tail
