"""The page's interactive charts as Vega-Lite specifications, and how schemes look in them.

Colours are CSS custom properties of the page, so that charts follow its light, dark and printed looks by themselves.
"""

import json
from collections.abc import Sequence
from typing import Any

from quantrust.quantization.scheme import UNQUANTIZED, is_scheme_word, parse_scheme
from quantrust.report.wording import items, metric_label

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
DASHES: tuple[list[int], ...] = ([], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3])
"""Strokes of methods, in the order in which a study names them."""
OTHERS = 4
"""Colours of schemes without one number of bits."""
SPACE = "\u00a0"
"""Before a percent sign, which stays on the line of its number."""
DODGE = 0.004
"""Distance between schemes on the axis of mixtures."""
CONFIG = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "gridColor": "var(--grid)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}


def looks(schemes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Choose the look of every scheme: a colour for the bits of the language model, a stroke for the method.

    Schemes without one number of bits, such as those of mixed precision, get colours of their own.

    Parameters
    ----------
    schemes : sequence of str
        Names.

    Returns
    -------
    dict of str to dict
        ``colour``, a CSS value, and ``dash``, lengths of strokes and gaps.
    """
    parsed = {name: parse_scheme(name) for name in schemes if is_scheme_word(name)}
    methods = list(dict.fromkeys(scheme.method for scheme in parsed.values() if scheme.method))
    found: dict[str, dict[str, Any]] = {}
    others = 0
    for name in schemes:
        scheme = parsed.get(name)
        bits = scheme.component_bits("language") if scheme else None
        if name == UNQUANTIZED:
            found[name] = {"colour": "var(--ink)", "dash": []}
        elif scheme and bits:
            found[name] = {
                "colour": f"var(--bits-{bits})",
                "dash": DASHES[methods.index(scheme.method) % len(DASHES)],
            }
        else:
            found[name] = {"colour": f"var(--other-{others % OTHERS})", "dash": []}
            others += 1
    return found


def _stroke(schemes: Sequence[str]) -> dict[str, Any]:
    styles = looks(schemes)
    names = list(styles)
    return {
        "color": {
            "field": "scheme",
            "scale": {"domain": names, "range": [styles[name]["colour"] for name in names]},
            "legend": None,
        },
        "strokeDash": {
            "field": "scheme",
            "scale": {"domain": names, "range": [styles[name]["dash"] or [1, 0] for name in names]},
            "legend": None,
        },
    }


def _base(description: str, dataset: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": SCHEMA,
        "description": description,
        "data": {"name": dataset},
        "width": "container",
        "height": 340,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": CONFIG,
        "params": [{"name": name, "value": value} for name, value in parameters.items()],
    }


def _hover() -> dict[str, Any]:
    # Not with `nearest`, under which Vega-Lite 6.4 shows names in tooltips as undefined: large points instead.
    return {"name": "hover", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}


def _visible_when_hovered() -> dict[str, Any]:
    return {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0}


def _percent_axis(title: str | None) -> dict[str, Any]:
    """Label an axis of fractions in percent, with the space before the sign that the page has everywhere."""
    return {"labelExpr": f"format(100 * datum.value, '~g') + '{SPACE}%'", "title": title}


def _in_percent(*fields: str) -> list[dict[str, str]]:
    """Write fields in percent, for tooltips; see `_percent`."""
    return [
        {"calculate": f"format(100 * datum.{field}, '.1f') + '{SPACE}%'", "as": f"{field}_in_percent"}
        for field in fields
    ]


def _percent(field: str, title: str) -> dict[str, Any]:
    return {"field": f"{field}_in_percent", "type": "nominal", "title": title}


def risk_coverage(schemes: Sequence[str]) -> dict[str, Any]:
    """Specify risk against coverage, with bands and the risk limit.

    The data set ``curves`` has a record for every curve, with arrays of equal length in ``coverage``, ``risk``, ``low``
    and ``high``; the data set ``operating`` has the rows of the table of decisions. The page sets the parameters
    ``model``, ``dataset``, ``estimator``, ``shown`` (schemes) and ``limit``.
    """
    spec = _base(
        "Risk against coverage, a line for every scheme, with a band for its interval. The table below has the values.",
        "curves",
        {"model": "", "dataset": "", "estimator": "", "shown": [], "limit": 0},
    )
    stroke = _stroke(schemes)
    x = {
        "field": "coverage",
        "type": "quantitative",
        "axis": _percent_axis(f"coverage: share of {items()} answered"),
        "scale": {"domain": [0, 1]},
    }
    axis = _percent_axis("risk: 1 - quality of what is answered")
    y = {"field": "risk", "type": "quantitative", "axis": axis}
    spec["transform"] = [
        {
            "filter": "datum.model === model && datum.dataset === dataset && datum.estimator === estimator "
            "&& indexof(shown, datum.scheme) >= 0"
        },
        {"flatten": ["coverage", "risk", "low", "high"]},
        *_in_percent("coverage", "risk", "low", "high"),
    ]
    tooltip = [
        {"field": "scheme", "type": "nominal", "title": "scheme"},
        _percent("coverage", "coverage"),
        _percent("risk", "risk"),
        _percent("low", "from"),
        _percent("high", "to"),
    ]
    spec["layer"] = [
        {
            "mark": {"type": "area", "opacity": 0.12, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": stroke["color"]},
        },
        {"mark": {"type": "line", "strokeWidth": 1.8, "aria": False}, "encoding": {"x": x, "y": y, **stroke}},
        {
            "params": [_hover()],
            "mark": {"type": "point", "filled": True, "size": 120, "aria": False},
            "encoding": {
                "x": x,
                "y": y,
                "color": stroke["color"],
                "opacity": _visible_when_hovered(),
                "tooltip": tooltip,
            },
        },
        _operating_points(stroke, axis),
        {
            "data": {"values": [{}]},
            "transform": [{"calculate": "limit", "as": "limit"}],
            "mark": {"type": "rule", "color": "var(--ink)", "strokeDash": [2, 3], "aria": False},
            "encoding": {"y": {"field": "limit", "type": "quantitative", "axis": axis}},
        },
    ]
    return spec


def _operating_points(stroke: dict[str, Any], axis: dict[str, Any]) -> dict[str, Any]:
    """Specify a mark for what each scheme's threshold of val answers at the limit, and at which risk."""
    tooltip = [
        {"field": "scheme", "type": "nominal", "title": "operating point of"},
        {"field": "threshold_shown", "type": "nominal", "title": "threshold"},
        _percent("deployed_coverage", "coverage"),
        _percent("deployed_risk", "risk"),
        _percent("deployed_risk_low", "from"),
        _percent("deployed_risk_high", "to"),
    ]
    return {
        "data": {"name": "operating"},
        "transform": [
            {
                "filter": "datum.model === model && datum.dataset === dataset && datum.estimator === estimator "
                "&& datum.risk_limit === limit && indexof(shown, datum.scheme) >= 0"
            },
            *_in_percent("deployed_coverage", "deployed_risk", "deployed_risk_low", "deployed_risk_high"),
        ],
        "mark": {
            "type": "point",
            "shape": "diamond",
            "filled": True,
            "size": 130,
            "stroke": "var(--paper)",
            "aria": False,
        },
        "encoding": {
            "x": {"field": "deployed_coverage", "type": "quantitative"},
            "y": {"field": "deployed_risk", "type": "quantitative", "axis": axis},
            "color": stroke["color"],
            "opacity": {"value": 1},
            "tooltip": tooltip,
        },
    }


def mixtures(schemes: Sequence[str], shares: Sequence[float]) -> dict[str, Any]:
    """Specify a metric against the share of questions in distribution, with a mark on the axis for every mixture.

    Parameters
    ----------
    schemes : sequence of str
    shares : sequence of float in [0, 1]
        Of questions in distribution, in the mixtures that were drawn.

    Returns
    -------
    dict

    The data set ``mixtures`` has a record for every variant, estimator, shift, share and metric, with ``id_share``,
    ``value``, ``low`` and ``high``. The page sets ``model``, ``dataset``, ``estimator``, ``metric`` and ``shown``.
    """
    spec = _base(
        f"{metric_label('accuracy')} or coverage at a risk limit against the mixture of {items()}, a line for every "
        "scheme, with bars for "
        "intervals. The table below has the values.",
        "mixtures",
        {"model": "", "dataset": "", "estimator": "", "metric": "", "shown": []},
    )
    stroke = _stroke(schemes)
    margin = DODGE * (len(schemes) + 1) / 2
    x = {
        "field": "place",
        "type": "quantitative",
        "scale": {"domain": [-margin, 1 + margin], "nice": False, "reverse": True},
        "axis": {
            "title": f"{items()} in distribution : {items()} of the shift",
            "labelExpr": "format(100 * datum.value, '.0f') + ':' + format(100 - 100 * datum.value, '.0f')",
            "values": sorted(shares),
            "labelOverlap": True,
        },
    }
    axis = _percent_axis(None)
    y = {"field": "value", "type": "quantitative", "axis": axis, "scale": {"zero": True}}
    middle = (len(schemes) - 1) / 2
    spec["transform"] = [
        {
            "filter": "datum.model === model && datum.dataset === dataset && datum.metric === metric "
            "&& datum.estimator === estimator && indexof(shown, datum.scheme) >= 0"
        },
        # Side by side, so that bars do not hide one another.
        {
            "calculate": f"datum.id_share - {DODGE} * (indexof({json.dumps(list(schemes))}, datum.scheme) - {middle})",
            "as": "place",
        },
        *_in_percent("id_share", "value", "low", "high"),
    ]
    tooltip = [
        {"field": "scheme", "type": "nominal", "title": "scheme"},
        _percent("id_share", "in distribution"),
        _percent("value", "value"),
        _percent("low", "from"),
        _percent("high", "to"),
    ]
    spec["layer"] = [
        {
            "mark": {"type": "rule", "opacity": 0.6, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": stroke["color"]},
        },
        {"mark": {"type": "line", "strokeWidth": 1.8, "aria": False}, "encoding": {"x": x, "y": y, **stroke}},
        {
            "params": [_hover()],
            "mark": {"type": "point", "filled": True, "size": 50, "aria": False},
            "encoding": {"x": x, "y": y, "color": stroke["color"], "tooltip": tooltip},
        },
    ]
    return spec
