"""What every dashboard is made of: panels that must say what they show, in what unit, and what is good.

The SDK's `build()` validates nothing, so the kit asks for it: each panel function takes a title, what is good
(it becomes part of the title), a description, a unit and its queries. The result is classic dashboard JSON,
the form that Grafana provisions from files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, loki, prometheus, tempo
from grafana_foundation_sdk.builders.logs import Panel as LogsPanel
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LogsSortOrder,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardSpecialValueMapOptions,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.tempo import SearchTableType

PROMETHEUS, LOKI, TEMPO = "prometheus", "loki", "tempo"
WIDTH = 24

Panel: TypeAlias = StatPanel | TimeseriesPanel | LogsPanel | TablePanel
Query: TypeAlias = prometheus.Dataquery | loki.Dataquery | tempo.Dataquery


@dataclass(frozen=True)
class Limit:
    """Where good ends: values from `value` on are good, or, with `good_below`, values below it."""

    value: float
    good_below: bool = False


def source(uid: str) -> DataSourceRef:
    """A provisioned data source; its type and its uid are the same word."""
    return DataSourceRef(type_val=uid, uid=uid)


def promql(
    expr: str, legend: str = "", *, exemplars: bool = False, instant: bool = False
) -> prometheus.Dataquery:
    """A Prometheus query, over the range shown unless `instant`."""
    query = prometheus.Dataquery().datasource(source(PROMETHEUS)).expr(expr).legend_format(legend)
    return query.instant() if instant else query.range().exemplar(exemplars)


def logql(expr: str, legend: str = "", *, lines: int = 100) -> loki.Dataquery:
    """A Loki query: a metric over time, or at most `lines` log lines."""
    return (
        loki.Dataquery()
        .datasource(source(LOKI))
        .query_type("range")
        .expr(expr)
        .legend_format(legend)
        .max_lines(lines)
    )


def traceql(query: str, *, traces: int) -> tempo.Dataquery:
    """A search for at most `traces` traces in Tempo."""
    searched = tempo.Dataquery().datasource(source(TEMPO)).query_type("traceql").query(query)
    return searched.limit(traces).table_type(SearchTableType.TRACES)


def stat(
    title: str,
    *,
    good: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    limit: Limit,
    width: int,
    decimals: int | None = None,
    words: dict[str, str] | None = None,
) -> StatPanel:
    """Big numbers, green where good and red elsewhere; `words` replace values, such as {"1": "up"}."""
    panel = StatPanel().thresholds(_thresholds(limit)).mappings(_mappings(words or {}))
    panel.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if decimals is not None:
        panel.decimals(decimals)
    _describe(panel, title=title, good=good, description=description, unit=unit, queries=queries)
    return panel.height(4).span(width)


def timeseries(
    title: str,
    *,
    good: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    width: int,
    limit: Limit | None = None,
) -> TimeseriesPanel:
    """Lines over time from zero, with a dashed line where good ends."""
    panel = TimeseriesPanel().min(0).line_width(1).fill_opacity(8)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if limit is not None:
        panel.thresholds(_thresholds(limit))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    _describe(panel, title=title, good=good, description=description, unit=unit, queries=queries)
    return panel.height(8).span(width)


def log_lines(title: str, *, good: str, description: str, query: loki.Dataquery, width: int) -> LogsPanel:
    """Log lines, newest first."""
    panel = LogsPanel().show_time(show_time=True).enable_log_details(enable_log_details=True)
    panel.wrap_log_message(wrap_log_message=True).sort_order(LogsSortOrder.DESCENDING)
    _describe(panel, title=title, good=good, description=description, unit="string", queries=[query])
    return panel.height(10).span(width)


def trace_table(title: str, *, good: str, description: str, query: tempo.Dataquery, width: int) -> TablePanel:
    """Traces, slowest first; the table's columns bring their own units."""
    panel = TablePanel().sort_by([common.TableSortByFieldState().display_name("Duration").desc(desc=True)])
    _describe(panel, title=title, good=good, description=description, unit="string", queries=[query])
    return panel.height(10).span(width)


def row(title: str) -> dashboard.Row:
    """A heading; the panels after it belong to it."""
    return dashboard.Row(title)


def choice(name: str, label: str, values: str) -> dashboard.QueryVariable:
    """A drop-down of some or all values of a Prometheus `label_values` query; used as `=~"$name"`."""
    variable = dashboard.QueryVariable(name).label(label).datasource(source(PROMETHEUS)).query(values)
    variable.include_all(include_all=True).all_value(".*").multi(multi=True)
    variable.current(VariableOption(selected=True, text="All", value="$__all"))
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def board(
    uid: str,
    title: str,
    *,
    description: str,
    choices: Sequence[dashboard.QueryVariable],
    parts: Sequence[dashboard.Row | Panel],
) -> dashboard.Dashboard:
    """A dashboard of rows and panels laid out in reading order, numbered in that order."""
    made = dashboard.Dashboard(title).uid(uid).description(description).tags(["yardstick"]).readonly()
    made.time("now-1h", "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    for variable in choices:
        made.with_variable(variable)
    for number, part in enumerate(parts, start=1):
        part.id(number)
        if isinstance(part, dashboard.Row):
            made.with_row(part)
        else:
            made.with_panel(part)
    return made


def _describe(
    panel: Panel, *, title: str, good: str, description: str, unit: str, queries: Sequence[Query]
) -> None:
    panel.title(f"{title} (good: {good})").description(description).unit(unit)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(query.ref_id(letter))
    panel.datasource(next(ref for query in queries if (ref := query.build().datasource)))


def _thresholds(limit: Limit) -> dashboard.ThresholdsConfig:
    below, above = ("green", "red") if limit.good_below else ("red", "green")
    steps = [Threshold(value=None, color=below), Threshold(value=limit.value, color=above)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(words: dict[str, str]) -> list[ValueMapping]:
    """Words for values, and for the share of nothing: not a number."""
    mappings: list[ValueMapping] = [
        SpecialValueMap(
            options=DashboardSpecialValueMapOptions(
                match=SpecialValueMatch.NA_N, result=ValueMappingResult(text="no traffic", color="text")
            )
        )
    ]
    if words:
        mappings.append(
            ValueMap(options={value: ValueMappingResult(text=text) for value, text in words.items()})
        )
    return mappings
