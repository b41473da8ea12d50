// Asks the service how it goes once a second, and shows it.

import { byId, make, tell } from "./dom.js";
import { Curves } from "./curves.js";
import { showExperiment } from "./experiment.js";
import { startStage } from "./stage.js";

const EVERY_MS = 1000;

const throughput = new Curves(byId("throughput"), [
  { name: "answered", of: (m) => m.answered, area: true },
  { name: "refused", of: (m) => m.turned_down || null },
]);
const latency = new Curves(byId("latency"), [
  { name: "p99", of: (m) => m.p99_ms },
  { name: "p95", of: (m) => m.p95_ms },
  { name: "p50", of: (m) => m.p50_ms },
], " ms");

/** Show the state of the service; null while it does not answer. */
function showHealth(state) {
  const [tone, mark, text] = !state ? ["fail", "✕", "no answer"]
    : state.ready ? ["pass", "✔", "ready"] : ["inconclusive", "–", "not ready"];
  byId("health").className = `pill ${tone}`;
  byId("health").replaceChildren(make("span", "mark", mark), text);
}

/** Show the figures of the last second that had any. */
function showNow(state) {
  const recent = state.moments.slice(-3);
  const answered = recent.reduce((sum, m) => sum + m.answered, 0) / recent.length;
  const last = recent.filter((m) => m.p50_ms !== null).at(-1);
  byId("now-answered").textContent = tell(answered);
  byId("now-p50").textContent = tell(last?.p50_ms);
  byId("now-p99").textContent = tell(last?.p99_ms);
  const waiting = state.versions.reduce((sum, v) => sum + v.queue_depth, 0);
  const limit = state.versions.reduce((sum, v) => sum + v.queue_limit, 0);
  byId("now-queue").textContent = waiting;
  byId("queue-limit").textContent = limit ? `of ${limit}` : "";
}

/** Say what a variant is there for. */
function role(variant, experiment) {
  if (!experiment) return "answers";
  if (experiment.rolled_back) return variant === experiment.baseline.name ? "answers" : "rolled back";
  return experiment.mode === "split" || variant === experiment.candidate.name ? "answers" : "follows";
}

const TONES = { answers: "chosen", follows: "skipped", "rolled back": "fail" };

/** Show a card for each version that is loaded. */
function showVersions(versions, experiment) {
  byId("version-cards").replaceChildren(...versions.map((version) => {
    const facts = make("dl");
    const told = [["Version", version.version], ["Precision", version.precision],
      ["Input", version.size.join(" × ")], ["Run", version.run ?? "–"],
      ["Requests", tell(version.requests)]];
    for (const [name, value] of told) facts.append(make("dt", "", name), make("dd", "", String(value)));
    const does = role(version.variant, experiment);
    const head = make("header", "", make("h3", "", version.variant), make("span", `pill ${TONES[does]}`, does));
    return make("article", "card version", head, make("p", "choice", version.engine), facts);
  }));
}

function show(state) {
  showHealth(state);
  byId("model").textContent = state.model;
  document.title = `${state.model} · raudo serve`;
  byId("raudo-version").textContent = state.raudo;
  showNow(state);
  throughput.draw(state.moments);
  latency.draw(state.moments);
  showVersions(state.versions, state.experiment);
  showExperiment(state.experiment);
}

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch("v1/live", { cache: "no-store" });
      if (answer.ok) show(await answer.json());
      else showHealth(null);
    } catch {
      showHealth(null);
    }
  }
  setTimeout(poll, EVERY_MS);
}

byId("address").textContent = new URL("v1/detect", document.baseURI);
startStage();
poll();
