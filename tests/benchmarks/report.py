"""What was found, as JSON, as tables in Markdown and as a plot."""

import importlib.metadata
import json
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS, PAGE, PLOT = ROOT / "docs" / "benchmarks.json", ROOT / "docs" / "benchmarks.md", "benchmarks.png"
LIBRARIES = ("jax", "jaxlib", "flax", "torch", "diffusers", "transformers", "openvino")
SHORT = ("unet32", "unet64", "vae512", "cifar10", "cifar10_batch8", "sdxl", "clip", "klein", "t5", "qwen3",
         "flux2_vae512", "text_to_image", "train_step")  # fmt: skip
SIDES = {"fdiff": "fdiff", "torch": "torch", "compile": "torch.compile", "openvino": "OpenVINO"}
MARKED = re.compile(r"(<!-- benchmarks:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Found = dict[str, Any]


def machine() -> str:
    """The processor, its cores and memory, and the versions that are installed."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(re.findall(r"^(model name|cpu family|model|flags)\s*: (.*)$", about, re.MULTILINE))
    wide = ["AVX-512"] * ("avx512f" in fields.get("flags", "")) + ["AMX"] * ("amx_tile" in fields.get("flags", ""))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = f"{fields.get('model name', 'a processor')} (family {fields.get('cpu family')}, model {fields.get('model')}"
    return f"{', '.join([name, *wide])}), {os.cpu_count()} cores, {memory:.0f} GB; " + ", ".join(
        f"{library} {version}" for library in LIBRARIES if (version := _version(library))
    )


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def add(name: str, found: Found, folder: Path | None) -> None:
    """Put what was found into the file of results."""
    file = folder / "results.json" if folder else RESULTS
    results = json.loads(file.read_text()) if file.exists() else {}
    results[name] = {**found, "machine": machine(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1, default=lambda x: round(x, 6)) + "\n")


def seconds(value: float | None) -> str:
    """Three figures, in milliseconds where it is short."""
    if value is None:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def ratio(found: Found, other: str) -> float | None:
    """fdiff's time over that of another side: the median of the ratios of turns, which see the same machine."""
    ours, theirs = (found["sides"].get(side, {}).get("turns") for side in ("fdiff", other))
    if not ours or not theirs:
        return None
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def line(name: str, found: Found) -> str:
    """A case in a line."""
    parts = []
    for side, told in found["sides"].items():
        if "seconds" in told:
            spread = max(told["turns"]) / min(told["turns"])
            busy = f", others {max(told['others']):.0%}"
            apart = f", {told['apart']:.0e} apart" if "apart" in told else ""
            parts.append(f"{side} {seconds(told['seconds'])} (x{spread:.2f}{busy}, begun in {told['begun'][0]:.1f} s, "
                         f"peak {told.get('peak', 0) / 1e9:.2f} GB{apart})")
        else:
            parts.append(f"{side} {told.get('failed', 'was not run')}")
    of = [f"{ratio(found, side):.2f} of {side}" for side in found["sides"] if side != "fdiff" and ratio(found, side)]
    return f"{name}: {'; '.join(parts + of)}"


def rate(results: dict[str, Found], limit: str) -> float | None:
    """The most operations, or bytes, a second that a limit was measured at."""
    found = results.get(limit, {"sides": {}})["sides"].values()
    rates = [side["operations"] / side["seconds"] for side in found if "seconds" in side]
    return max(rates, default=None)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, figures to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows] if rows else []
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def number(value: float | None, unit: str = "") -> str:
    """Two digits behind the point, or a dash."""
    return "-" if value is None else f"{value:.2f}{unit}"


def times(results: dict[str, Found], names: list[str]) -> str:
    """Times, ratios and shares."""
    rows, product = [], rate(results, "product")
    for name in names:
        found = results[name]
        sides, wanted = found["sides"], found["wanted"]
        taken = [seconds(sides.get(side, {}).get("seconds")) for side in SIDES]
        done, took = sides.get("torch", {}).get("operations"), sides.get("fdiff", {}).get("seconds")
        share = done / took / product if done and took and product else None
        rows.append([found["about"], *taken, number(ratio(found, "torch")) + (f" (wanted {wanted})" if wanted else ""),
                     number(ratio(found, "openvino")), number(share), busy(sides)])  # fmt: skip
    header = ["", *SIDES.values(), "of torch", "of OpenVINO", "of a product's rate", "other work"]
    return table(header, rows)


def first(values: list[float] | None) -> float | None:
    """The first, where there is one."""
    return values[0] if values else None


def busy(sides: Found) -> str:
    """What other work took of the processors, in the median turn."""
    taken = [share for side in sides.values() for share in side.get("others", ())]
    return f"{statistics.median(taken):.0%}" if taken else "-"


def memory(results: dict[str, Found], names: list[str]) -> str:
    """The most memory of a process, what beginning took, and how far outputs are apart."""
    rows = []
    for name in names:
        sides = results[name]["sides"]
        peaks = [number(sides[side]["peak"] / 1e9) if "peak" in sides.get(side, {}) else "-" for side in SIDES]
        begun = [seconds(first(sides.get(side, {}).get("begun"))) for side in ("fdiff", "openvino")]
        rows.append([results[name]["about"], *peaks, *begun,
                     f"{sides['fdiff']['apart']:.0e}" if "apart" in sides.get("fdiff", {}) else "-"])
    header = ["", *(f"{side}, GB" for side in SIDES.values()), "fdiff compiles in", "OpenVINO in", "apart"]
    return table(header, rows)


def others(results: dict[str, Found], names: list[str]) -> str:
    """Cases whose sides are their own."""
    rows = []
    for name in names:
        for side, told in results[name]["sides"].items():
            peak = number(told["peak"] / 1e9) if "peak" in told else "-"
            rows.append([results[name]["about"], side, seconds(told.get("seconds")), peak, busy({side: told})])
    return table(["", "", "", "GB at most", "other work"], rows)


def reasons(results: dict[str, Found]) -> str:
    """Why there is no figure where there is none."""
    return "".join(
        f"- {found['about']}: {SIDES.get(side, side)} {told['failed']}\n"
        for found in results.values() for side, told in found["sides"].items() if "failed" in told
    )  # fmt: skip


def limits(results: dict[str, Found]) -> str:
    """The machine's own limits, in a sentence."""
    product, copy = rate(results, "product"), rate(results, "copy")
    told = [f"a product of matrices does {product / 1e9:.0f} GFLOP a second"] if product else []
    told += [f"a copy reads and writes {copy / 1e9:.1f} GB a second"] if copy else []
    return f"Of the machine: {', '.join(told)}." if told else ""


def parts(results: dict[str, Found]) -> dict[str, str]:
    """What stands between the marks of the pages."""
    order = [name for name in _order() if name in results]
    beside = [name for name in order if "openvino" in results[name]["sides"] or name in SHORT]
    rest = [name for name in order if name not in beside or set(results[name]["sides"]) - set(SIDES)]
    where: dict[str, set[str]] = {}
    for found in results.values():
        where.setdefault(found["machine"], set()).add(found["date"])
    head = "".join(f"{each}; {', '.join(sorted(dates))}.\n" for each, dates in where.items())
    head += f"{limits(results)}\n\n"
    why = reasons(results)
    return {
        "times": head + times(results, beside),
        "memory": memory(results, beside),
        "others": others(results, rest),
        "reasons": f"No figure, and why:\n\n{why}" if why else "",
        "short": head + times(results, [name for name in beside if name in SHORT]),
    }


def _order() -> list[str]:
    from tests.benchmarks.cases import CASES

    return [case.name for case in CASES]


def write(folder: Path | None) -> None:
    """The tables and the plot of all that was found: between the marks of the pages, or in a folder."""
    file = folder / "results.json" if folder else RESULTS
    results = json.loads(file.read_text())
    made = parts(results)
    if folder:
        text = "\n".join(made[part] for part in ("times", "memory", "others", "reasons"))
        (folder / "table.md").write_text(text)
    else:
        for page in (PAGE, ROOT / "README.md"):
            page.write_text(MARKED.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n{found[3]}", page.read_text()))
    plot(results, folder / "plot.png" if folder else PAGE.parent / "pictures" / PLOT)


def plot(results: dict[str, Found], file: Path) -> None:
    """Times over torch's, a bar for each side."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    names = [name for name in _order() if name in results and results[name]["sides"].get("torch", {}).get("seconds")]
    names = [name for name in names if results[name]["sides"].get("fdiff", {}).get("seconds") and name != "product"]
    if not names:
        return
    figure = Figure(figsize=(9, 0.5 * len(names) + 1.5), layout="constrained")
    axes = figure.subplots()
    for i, (side, told) in enumerate(SIDES.items()):
        taken = [results[name]["sides"].get(side, {}).get("seconds") for name in names]
        of = [results[name]["sides"]["torch"]["seconds"] for name in names]
        at = [(place + 0.2 * (i - 1.5), taken[place] / of[place]) for place in range(len(names)) if taken[place]]
        if at:
            axes.barh(*zip(*at, strict=True), height=0.2, label=told)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_yticks(range(len(names)), [results[name]["about"] for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("time, of torch's (less is sooner)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=100)
