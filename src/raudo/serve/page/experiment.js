// The state of an A/B experiment: what each guard knows, and how sure that is.

import { byId, make, tell } from "./dom.js";

const TITLES = {
  agreement: ["Agreement", "drop below what was proven"],
  latency: ["Latency", "longer than the baseline's"],
  errors: ["Errors", "more than the baseline's"],
  class_flips: ["Class flips", "same box, another class"],
  score_shift: ["Scores", "fall below the baseline's"],
};
const VERDICTS = {
  PASS: ["pass", "✔"], FAIL: ["fail", "✕"], INCONCLUSIVE: ["inconclusive", "?"],
};

/** Show an experiment, or that there is none. */
export function showExperiment(experiment) {
  byId("experiment").hidden = byId("to-experiment").hidden = !experiment;
  if (!experiment) return;
  const [tone, mark] = VERDICTS[experiment.verdict];
  byId("ab-verdict").className = `pill ${tone}`;
  byId("ab-verdict").replaceChildren(make("span", "mark", mark), experiment.verdict);
  const { candidate, baseline } = experiment;
  byId("ab-what").textContent = experiment.mode === "split"
    ? `${tell(experiment.share_percent)} % of the requests go to ${baseline.name}`
    : `${baseline.name} gets a copy of ${tell(experiment.share_percent)} % of the requests`;
  byId("ab-lede").replaceChildren(...summary(experiment));
  byId("figures").replaceChildren(...experiment.figures.map(figureRow), sides(candidate, baseline));
}

function summary(experiment) {
  const { candidate, baseline, requests } = experiment;
  const strong = (text) => make("b", "", text);
  if (experiment.rolled_back) {
    return [strong(`Rolled back to ${baseline.name}`), ` after ${tell(experiment.rolled_back.requests)} requests: ${experiment.rolled_back.reason}.`];
  }
  if (experiment.verdict === "PASS") {
    return [strong(`${candidate.name} holds`), `: all guards were certain after ${tell(experiment.held_after)} requests, and are still watched (${tell(requests)} so far).`];
  }
  return [strong("Undecided"), ` after ${tell(requests)} requests: an interval still reaches over its limit.`];
}

function withUnit(figure, value, text = tell(value)) {
  return `${text} ${figure.unit === "%" ? "%" : Math.abs(value) === 1 ? "point" : "points"}`;
}

function figureRow(figure) {
  const [title, meaning] = TITLES[figure.name] ?? [figure.name, ""];
  const tone = figure.verdict ? VERDICTS[figure.verdict][0] : "skipped";
  const row = make("div", `ab-figure ${tone}`);
  const signed = (value) => (value > 0 ? "+" : "") + tell(value);
  const interval = figure.low === null || figure.high === null ? "not enough seen yet"
    : `${signed(figure.low)} to ${signed(figure.high)}`;
  const name = make("div", "ab-name", make("b", "", title), make("small", "", meaning));
  const value = make("div", "ab-value",
    make("b", "", figure.value === null ? "–" : withUnit(figure, figure.value, signed(figure.value))), make("small", "", interval));
  row.append(name, gauge(figure), value, guardText(figure));
  return row;
}

function guardText(figure) {
  if (!figure.verdict) return make("div", "ab-guard note", "watched, not guarded");
  const [tone, mark] = VERDICTS[figure.verdict];
  const told = figure.verdict === "INCONCLUSIVE" && figure.needed
    ? `about ${tell(figure.needed)} requests settle it` : `limit ${withUnit(figure, figure.limit)}`;
  return make("div", "ab-guard note", make("span", `pill ${tone}`, make("span", "mark", mark), figure.verdict), make("small", "", told));
}

/** Draw an interval on a line that reaches from twice the limit better to twice the limit worse. */
function gauge(figure) {
  const reach = 2 * (figure.limit ?? Math.max(1, Math.abs(figure.low ?? 0), Math.abs(figure.high ?? 0)) / 1.6);
  const at = (value) => `${Math.min(100, Math.max(0, 50 + (50 * value) / reach))}%`;
  const box = make("div", "gauge");
  box.append(make("i", "zero"));
  if (figure.limit !== null) {
    const zone = make("i", "zone");
    zone.style.right = `calc(100% - ${at(figure.tolerated)})`;
    const limit = make("i", "limit");
    limit.style.left = at(figure.limit);
    box.append(zone, limit);
  }
  if (figure.low !== null && figure.high !== null) {
    const span = make("i", "reach");
    span.style.left = at(figure.low);
    span.style.right = `calc(100% - ${at(figure.high)})`;
    box.append(span);
  }
  if (figure.value !== null) {
    const dot = make("i", "dot");
    dot.style.left = at(figure.value);
    box.append(dot);
  }
  return box;
}

function sides(...variants) {
  const head = make("tr", "", ...["Variant", "Requests", "Failed", "Median", "95 %", "99 %"].map((t) => make("th", "", t)));
  const rows = variants.map((v) => make("tr", "",
    make("th", "", v.name),
    ...[tell(v.requests), tell(v.failed), ...[v.p50_ms, v.p95_ms, v.p99_ms].map((ms) => (ms === null ? "–" : `${tell(ms)} ms`))]
      .map((text) => make("td", "", text))));
  return make("div", "scroll", make("table", "", make("thead", "", head), make("tbody", "", ...rows)));
}
