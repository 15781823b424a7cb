"""Curves along one setting: the outlier threshold, and the skip lists."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from quantlab.measurement import MEANINGLESS
from quantlab.report.floor import draw_floor
from quantlab.report.view import StudyView, skip_names


def plot_thresholds(study: StudyView) -> Figure:
    """SNR and latency against llm_int8_threshold, one line a skip list; threshold 0 (no outliers) stands apart.

    The bars of the SNR are its interval, those of the latency its interquartile range.
    """
    data = study.distinct
    data = data[(data["method"] == "llm_int8") & ~data["llm_int8_has_fp16_weight"].fillna(False)]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    snr, latency = figure.subplots(1, 2, sharex=True)
    names = skip_names(study.model)
    beside = 0.009 * float(data["llm_int8_threshold"].max()) if len(data) else 0.0
    for index, (skip, group) in enumerate((str(s), g) for s, g in data.groupby("skip")):
        group = group.sort_values("llm_int8_threshold")
        detecting = group[group["llm_int8_threshold"] > 0]
        off = group[group["llm_int8_threshold"] == 0]
        colour = f"C{index}"
        x = detecting["llm_int8_threshold"].astype(float)
        line = "-" if len(detecting) > 1 else ""
        snr.plot(x, detecting["snr_db"].astype(float), line, marker="o", color=colour, label=names.get(skip, skip))
        latency.errorbar(
            x,
            detecting["latency_ms"].astype(float),
            yerr=detecting["latency_iqr_ms"].astype(float) / 2,
            linestyle=line or "none",
            marker="o",
            color=colour,
            capsize=2,
        )
        known = group[group["snr_low_db"].notna()]
        low, high = (known[name].astype(float) for name in ("snr_low_db", "snr_high_db"))
        shift = (index - (data["skip"].nunique() - 1) / 2) * beside  # or the lists' bars would cover each other
        where = known["llm_int8_threshold"].astype(float) + shift
        snr.vlines(where, low, high, colors=colour, linewidth=1, alpha=0.6, zorder=1)
        for axes, column in ((snr, "snr_db"), (latency, "latency_ms")):
            axes.scatter([0.0] * len(off), off[column].astype(float), marker="x", color=colour)
    snr.set_ylabel(study.snr_label)
    draw_floor(snr, study)
    latency.set_ylabel("latency of one forward, ms (bars: interquartile range)")
    for axes in (snr, latency):
        axes.set_xlabel("llm_int8_threshold (x at 0: no outlier detection)")
        axes.grid(alpha=0.25)
    if not data.empty:
        snr.legend(title="skip list", fontsize=8)
    return figure


def plot_skip_effects(study: StudyView) -> Figure:
    """What each skip list adds in SNR and in memory to the same setting without it, one bar a method."""
    effects = skip_effects(study)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    snr, memory = figure.subplots(1, 2)
    if not effects.empty:
        effects.pivot(index="skip", columns="form", values="snr_gain_db").plot.bar(ax=snr, rot=30)
        effects.pivot(index="skip", columns="form", values="memory_cost_mb").plot.bar(ax=memory, rot=30, legend=False)
    snr.set_ylabel("SNR gained, dB (mean)" + ("" if study.fidelity_is_meaningful else f"\n({MEANINGLESS})"))
    memory.set_ylabel("memory added, MB (mean)")
    for axes in (snr, memory):
        axes.set_xlabel("skip list")
        axes.grid(alpha=0.25, axis="y")
    return figure


def skip_effects(study: StudyView) -> pd.DataFrame:
    """Mean SNR gain in dB and memory cost in MB of each skip list by form, against the same setting without one."""
    data = study.distinct
    data = data[data["method"] != "reference"].copy()
    settings = [c for c in data.columns if c.startswith(("llm_int8", "bnb_4bit"))] + ["method"]
    data["setting"] = [str(values) for values in data[settings].itertuples(index=False)]
    data["form"] = data["bnb_4bit_quant_type"].fillna("int8").astype(str)
    plain = data[data["skip"] == ""].set_index("setting")
    kept = data[(data["skip"] != "") & data["setting"].isin(plain.index)].copy()
    if kept.empty:
        return pd.DataFrame(columns=["skip", "form", "snr_gain_db", "memory_cost_mb"])
    base = plain.loc[kept["setting"]]
    kept["snr_gain_db"] = kept["snr_db"].astype(float).to_numpy() - base["snr_db"].astype(float).to_numpy()
    added = kept["memory_bytes"].astype(float).to_numpy() - base["memory_bytes"].astype(float).to_numpy()
    kept["memory_cost_mb"] = added / 1e6
    kept["skip"] = kept["skip"].map(lambda skip: skip_names(study.model).get(skip, skip))
    return kept.groupby(["skip", "form"], as_index=False)[["snr_gain_db", "memory_cost_mb"]].mean()
