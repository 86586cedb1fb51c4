"use strict";
// What the page does: fill tables, charts and examples from the study's values, as the reader chooses.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const MISSING = "–";

const percent = (value) => (value === null ? MISSING : `${(100 * value).toFixed(1)} %`);
const span = (low, high) =>
  low === null || high === null ? "" : `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)} %`;
// A limit of the config, with the decimals that it has.
const inWords = (share) => `${Number((100 * share).toFixed(6))} %`;

// A table of the study comes as one array a column.
const rowsOf = (columns) => {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, place) => Object.fromEntries(names.map((name) => [name, columns[name][place]])));
};

const create = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

// Verdicts: a panel for each confidence and risk limit, of which one is shown.

const showVerdicts = () => {
  const [estimator, risk] = ["estimator", "risk"].map((name) => element(`verdict-${name}`).value);
  for (const panel of document.querySelectorAll(".panel")) {
    panel.hidden = panel.dataset.estimator !== estimator || panel.dataset.risk !== risk;
  }
  document.querySelector("#verdicts .copied").textContent = "";
};

// The decision table.

const shares = Object.fromEntries(
  rowsOf(data.sizes).map((row) => [`${row.model}/${row.scheme}`, row.share_of_bf16])
);
const decisions = rowsOf(data.decisions).map((row, place) => ({
  ...row,
  place,
  share_of_bf16: shares[`${row.model}/${row.scheme}`],
}));
const limits = [...new Set(decisions.map((row) => row.risk_limit))].sort((one, other) => one - other);
// By risk limit, how many images it takes to tell whether it is kept.
const fewest = Object.fromEntries(data.fewest.map((row) => [row.limit, row.images]));
const order = { key: null, descending: false };
const currentLimit = () => limits[Number(element("limit").value)];

const cell = (tag, value, shown, interval = "") => {
  const made = create(tag, shown, { "data-value": value === null ? "" : value });
  if (interval) made.append(create("small", interval));
  return made;
};

// What may be copied is shown short; pressed, it shows and copies the whole.
const copyable = (shown, whole, what) => {
  const button = create("button", shown, { type: "button", class: "copy", title: whole, "data-copy": whole, "data-what": what });
  button.append(create("span", `, copy the ${what}`, { class: "visually-hidden" }));
  return button;
};
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const { copy, what } = button.dataset;
  const done = await navigator.clipboard?.writeText(copy).then(
    () => true,
    () => false
  );
  const whole = `${what[0].toUpperCase()}${what.slice(1)}: ${copy}`;
  button.closest("section").querySelector(".copied").textContent = done ? `${whole} (copied)` : whole;
});
const threshold = (row, name, what) =>
  copyable(row[`${name}_shown`], String(row[name]), `${what} of ${row.scheme} for ${row.model}`);

const MARKS = {
  broken: ["▲", "above the limit"],
  above: ["△", "above the limit, which its interval does not settle"],
  few: ["?", "too few images to tell"],
};
const marked = (made, ...kinds) => {
  for (const kind of kinds) {
    const [sign, meaning] = MARKS[kind];
    made.classList.add(kind);
    made.firstChild.data += ` ${sign}`;
    made.append(create("span", meaning, { class: "visually-hidden" }));
  }
  return made;
};

// A limit that was not declared before the study has no certificate, whatever the images would allow.
const certifiedOr = (row) => (row.certified_delta === null ? MISSING : "none");

const decisionRow = (row) => {
  const made = create("tr");
  const scheme = cell("th", row.scheme, row.scheme);
  scheme.setAttribute("scope", "row");
  scheme.append(create("small", row.model, { class: "narrow" }));
  const limit = row.risk_limit;
  const valThreshold = cell("td", row.threshold, row.threshold === null ? "none" : "");
  if (row.threshold !== null) valThreshold.append(threshold(row, "threshold", "threshold"));
  const certified = cell("td", row.certified_threshold, row.certified_threshold === null ? certifiedOr(row) : "");
  if (row.certified_threshold !== null) {
    certified.append(threshold(row, "certified_threshold", "certified threshold"));
    certified.append(create("small", percent(row.certified_coverage)));
  }
  const risk = cell("td", row.deployed_risk, percent(row.deployed_risk), span(row.deployed_risk_low, row.deployed_risk_high));
  if (row.deployed_risk !== null) {
    const few = row.deployed_images < fewest[limit];
    if (row.deployed_risk > limit) marked(risk, row.deployed_risk_low > limit && !few ? "broken" : "above");
    if (few) marked(risk, "few");
  }
  const certifiedRisk = cell(
    "td",
    row.certified_median_risk,
    percent(row.certified_median_risk),
    row.certified_median_risk === null ? "" : `above: ${percent(row.certified_violation_rate)}`
  );
  if (row.certified_median_risk > limit) marked(certifiedRisk, "broken");
  made.append(
    cell("td", row.model, row.model),
    scheme,
    cell("td", row.share_of_bf16, percent(row.share_of_bf16)),
    cell("td", row.coverage, percent(row.coverage), span(row.coverage_low, row.coverage_high)),
    valThreshold,
    cell("td", row.deployed_coverage, percent(row.deployed_coverage), span(row.deployed_coverage_low, row.deployed_coverage_high)),
    risk,
    certified,
    cell("td", row.certified_share, percent(row.certified_share)),
    cell("td", row.certified_median_coverage, percent(row.certified_median_coverage)),
    certifiedRisk
  );
  return made;
};

const compare = (one, other) => {
  const [a, b] = [one[order.key], other[order.key]];
  // What has no value stands last, whichever way the rest is sorted.
  if (a === null || b === null) return (a === null) - (b === null) || one.place - other.place;
  const difference = typeof a === "string" ? a.localeCompare(b) : a - b;
  return (order.descending ? -difference : difference) || one.place - other.place;
};

const showDecisions = () => {
  const limit = currentLimit();
  const wanted = ["model", "dataset", "estimator"].map((name) => [name, element(`decide-${name}`).value]);
  const rows = decisions.filter(
    (row) => row.risk_limit === limit && wanted.every(([name, value]) => value === "" || row[name] === value)
  );
  if (order.key !== null) rows.sort(compare);
  element("limit-shown").textContent = inWords(limit);
  element("limit").setAttribute("aria-valuetext", inWords(limit));
  element("fewest").textContent = fewest[limit].toLocaleString("en");
  document.querySelector("#decide .copied").textContent = "";
  const { dataset, estimator } = Object.fromEntries(wanted);
  const set = rows.some((row) => row.val_images < fewest[limit])
    ? ` Thresholds are set on ${rows[0].val_images} images of val: fewer than ${fewest[limit]} do not tell whether this limit is kept, and where they lie is chance.`
    : "";
  element("decisions-caption").textContent =
    `Risk limit ${inWords(limit)} on ${dataset}, by the confidence of ${estimator}: ${rows.length} variants.${set}`;
  document.querySelector("#decisions tbody").replaceChildren(...rows.map(decisionRow));
};

const sortBy = (key) => {
  order.descending = order.key === key && !order.descending;
  order.key = key;
  for (const head of document.querySelectorAll("#decisions [data-key]")) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  showDecisions();
};

// The charts.

const schemes = Object.keys(data.looks);
const views = {};
const shown = { curves: new Set(schemes), mixtures: new Set(schemes) };
const choices = { curves: ["model", "dataset", "estimator"], mixtures: ["model", "dataset", "estimator", "metric"] };
const chosen = (chart) =>
  Object.fromEntries(choices[chart].map((name) => [name, element(`${chart}-${name}`).value]));
const shownSchemes = (chart) => schemes.filter((scheme) => shown[chart].has(scheme));

const update = (chart) => {
  const values = { ...chosen(chart), shown: shownSchemes(chart) };
  if (chart === "curves") values.limit = currentLimit();
  for (const [name, value] of Object.entries(values)) views[chart].signal(name, value);
  views[chart].run();
  tables[chart]();
};

const matching = (chart) => {
  const wanted = Object.entries(chosen(chart));
  return data[chart].filter((row) => shown[chart].has(row.scheme) && wanted.every(([name, value]) => row[name] === value));
};

const fill = (table, heads, rows) => {
  const head = create("tr");
  head.append(...heads.map((text) => create("th", text, { scope: "col" })));
  const body = rows.map(([name, ...values]) => {
    const row = create("tr");
    row.append(create("th", name, { scope: "row" }), ...values.map((text) => create("td", text)));
    return row;
  });
  const [top, rest] = [create("thead"), create("tbody")];
  top.append(head);
  rest.append(...body);
  table.replaceChildren(top, rest);
};

const TENTHS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
const riskAt = (curve, coverage) => {
  const place = curve.coverage.findIndex((value) => value >= coverage - 1e-9);
  return place < 0 ? null : curve.risk[place];
};
const tables = {
  curves: () =>
    fill(
      element("curves-table"),
      ["Coverage", ...TENTHS.map((coverage) => `${(100 * coverage).toFixed(0)} %`)],
      matching("curves").map((curve) => [curve.scheme, ...TENTHS.map((coverage) => percent(riskAt(curve, coverage)))])
    ),
  mixtures: () => {
    const rows = matching("mixtures");
    const idShares = [...new Set(rows.map((row) => row.id_share))].sort((one, other) => other - one);
    const at = Object.fromEntries(rows.map((row) => [`${row.scheme} ${row.id_share}`, row.value]));
    fill(
      element("mixtures-table"),
      ["Mixture", ...idShares.map((share) => `${(100 * share).toFixed(0)}:${(100 - 100 * share).toFixed(0)}`)],
      shownSchemes("mixtures").map((scheme) => [
        scheme,
        ...idShares.map((share) => percent(at[`${scheme} ${share}`] ?? null)),
      ])
    );
  },
};

// Operating points: what a threshold of val answers on a test set, and at which risk.
const operating = decisions.filter((row) => row.deployed_risk !== null);

const LOG_ERRORS = 1;
const draw = async (chart) => {
  const spec = { ...data.charts[chart], data: { name: chart, values: data[chart] }, datasets: { operating } };
  spec.params = spec.params.map(({ name, value }) => ({
    name,
    value: { ...chosen(chart), shown: shownSchemes(chart), limit: currentLimit() }[name] ?? value,
  }));
  // The interpreter of expressions, because the page forbids itself to evaluate text as code.
  // Warnings are left out: without a scheme to show there is no extent of values, which is not a fault.
  const options = { actions: false, renderer: "svg", ast: true, tooltip: { theme: "custom" }, logLevel: LOG_ERRORS };
  const { view } = await vegaEmbed(`#${chart}-chart`, spec, options);
  views[chart] = view;
  tables[chart]();
  for (const name of choices[chart]) element(`${chart}-${name}`).addEventListener("change", () => update(chart));
  const toggles = document.querySelector(`.toggles[data-chart="${chart}"]`);
  toggles.addEventListener("change", (event) => {
    shown[chart][event.target.checked ? "add" : "delete"](event.target.value);
    update(chart);
  });
  toggles.addEventListener("click", (event) => {
    if (!event.target.dataset.all) return;
    shown[chart] = new Set(event.target.dataset.all === "true" ? schemes : []);
    for (const box of toggles.querySelectorAll("input")) box.checked = shown[chart].has(box.value);
    update(chart);
  });
};

// A finger that lifts leaves the chart, and with it goes the tooltip. So a tap points at the mark nearest to it, as a
// mouse would, until the next tap.

const REACH = 24;
let pointedAt = null;
const point = (mark, types) => {
  const { x, y, width, height } = mark.getBoundingClientRect();
  const place = { clientX: x + width / 2, clientY: y + height / 2, bubbles: true };
  for (const type of types) mark.dispatchEvent(new PointerEvent(type, place));
};
document.addEventListener("click", (event) => {
  if (event.pointerType === "mouse") return;
  // Selections of the charts end with the one, tooltips with the other.
  if (pointedAt?.isConnected) point(pointedAt, ["pointerout", "mouseout"]);
  pointedAt = null;
  let nearest = REACH;
  for (const mark of event.target.closest(".chart")?.querySelectorAll(".mark-symbol path") ?? []) {
    const { x, y, width, height } = mark.getBoundingClientRect();
    const distance = Math.hypot(x + width / 2 - event.clientX, y + height / 2 - event.clientY);
    if (distance < nearest) [nearest, pointedAt] = [distance, mark];
  }
  if (pointedAt) point(pointedAt, ["pointerover", "pointermove"]);
});

// Examples.

const PIXELATED_BELOW = 128;

const picture = (name, alt) => {
  const image = create("img", undefined, { src: data.pictures[name], alt });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < PIXELATED_BELOW));
  return image;
};

const example = (row) => {
  const made = create("figure", undefined, { class: "example" });
  const alt = row.question ? `Picture that the ${data.item} “${row.question}” is about` : "Picture";
  const caption = create("figcaption");
  if (row.question) caption.append(create("q", row.question));
  const list = create("dl");
  const answers = [...new Set(row.answers)].map((answer) => {
    const count = row.answers.filter((other) => other === answer).length;
    return row.answers.length > 1 ? `${answer} (${count})` : answer;
  });
  const facts = {
    answer: row.found ? picture(row.found, "Picture that was found") : row.answer || "(empty)",
    reference: row.found ? "the picture above" : answers.join(", "),
    quality: percent(row.quality),
    confidence: `${row.shown[0]}; threshold ${row.shown[1]}`,
  };
  for (const [name, value] of Object.entries(facts)) {
    const described = create("dd");
    described.append(value);
    list.append(create("dt", name), described);
  }
  caption.append(list);
  made.append(picture(row.picture, alt), caption);
  return made;
};

const showExamples = () => {
  const wanted = ["model", "scheme", "dataset"].map((name) => [name, element(`examples-${name}`).value]);
  const rows = data.examples.filter((row) => wanted.every(([name, value]) => row[name] === value));
  const kinds = create("div", undefined, { class: "kinds" });
  for (const kind of data.kinds) {
    const column = create("div");
    const examples = rows.filter((row) => row.kind === kind).map(example);
    column.append(create("h3", kind), ...(examples.length ? examples : [create("p", "None.", { class: "note" })]));
    kinds.append(column);
  }
  element("examples-shown").replaceChildren(kinds);
};

// Tables that are wider than the window say so: a note above, and a faded edge as long as there is more to the right.

const seen = new ResizeObserver((entries) => {
  for (const { target } of entries) showMore(target.closest(".scroll"));
});
const showMore = (region) => {
  region.classList.toggle("overflows", region.scrollWidth > region.clientWidth + 1);
  region.classList.toggle("more", region.scrollLeft + region.clientWidth < region.scrollWidth - 1);
};
for (const region of document.querySelectorAll(".scroll")) {
  region.addEventListener("scroll", () => showMore(region), { passive: true });
  for (const watched of [region, region.querySelector("table")]) seen.observe(watched);
}

// The list of contents: it marks the section that is read, and an entry unfolds the section that it leads to.

const NARROW = window.matchMedia("(max-width: 40rem)");
const contents = element("contents");
const entries = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
const fitContents = () => {
  contents.open = !NARROW.matches;
};
const unfold = (id) => {
  const fold = document.getElementById(id)?.querySelector(":scope > .fold");
  if (fold) fold.open = true;
};
for (const [id, link] of entries) {
  link.addEventListener("click", () => {
    unfold(id);
    fitContents();
  });
}
window.addEventListener("hashchange", () => unfold(location.hash.slice(1)));
NARROW.addEventListener("change", fitContents);
const inView = new Set();
const watching = new IntersectionObserver(
  (changes) => {
    for (const { target, isIntersecting } of changes) inView[isIntersecting ? "add" : "delete"](target.id);
    const current = [...entries.keys()].find((id) => inView.has(id));
    for (const [id, link] of entries) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  },
  // Below the list, down to the middle of the window.
  { rootMargin: "-60px 0px -50% 0px" }
);
for (const id of entries.keys()) watching.observe(element(id));

// Print has every section, and what verdicts mean.

let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll(".fold:not([open]), #verdicts details:not([open])")];
  for (const fold of folded) fold.open = true;
});
window.addEventListener("afterprint", () => {
  for (const fold of folded) fold.open = false;
});

// Start.

for (const swatch of document.querySelectorAll(".swatch")) {
  const look = data.looks[swatch.dataset.scheme];
  swatch.style.borderTopColor = look.colour;
  swatch.style.borderTopStyle = look.dash.length === 0 ? "solid" : look.dash[0] > 3 ? "dashed" : "dotted";
}
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
// What is chosen for the verdicts is chosen for what stands below, too; there it may be changed for itself.
const follow = () => {
  const [estimator, risk] = ["estimator", "risk"].map((name) => element(`verdict-${name}`).value);
  showVerdicts();
  element("verdict-status").textContent = `Verdicts by the confidence of ${estimator} at a risk limit of ${inWords(risk)}`;
  for (const chart of ["decide", ...charts]) element(`${chart}-estimator`).value = estimator;
  element("limit").value = limits.indexOf(Number(risk));
  showDecisions();
  for (const chart of charts) update(chart);
};
// A study without shifted datasets has no mixtures.
const charts = element("mixtures") ? ["curves", "mixtures"] : ["curves"];
for (const chart of ["decide", ...charts]) element(`${chart}-estimator`).value = data.start.estimator;
for (const name of ["estimator", "risk"]) element(`verdict-${name}`).addEventListener("change", follow);
element("limit").addEventListener("input", () => {
  showDecisions();
  if (views.curves) update("curves");
});
for (const name of ["model", "dataset", "estimator"]) element(`decide-${name}`).addEventListener("change", showDecisions);
for (const head of document.querySelectorAll("#decisions [data-key]")) {
  head.querySelector("button").addEventListener("click", () => sortBy(head.dataset.key));
}
for (const name of ["model", "scheme", "dataset"]) element(`examples-${name}`).addEventListener("change", showExamples);
fitContents();
unfold(location.hash.slice(1));
showVerdicts();
showDecisions();
showExamples();
Promise.all(charts.map(draw)).then(() => document.documentElement.setAttribute("data-ready", "true"));
