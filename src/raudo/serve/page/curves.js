// Curves over the last two minutes, drawn as SVG in the pixels of their box.

import { make, svg, tell } from "./dom.js";

const MARGIN = { left: 46, right: 10, top: 10, bottom: 22 };

/** Return about four round ticks from 0 to at least `most`. */
export function ticks(most) {
  const rough = Math.max(most, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let value = 0; found.at(-1) === undefined || found.at(-1) < most; value += step) found.push(value);
  return found;
}

/** A figure of one or more curves. Each of `series` has a `name`, its class, and `of(moment)`. */
export class Curves {
  constructor(box, series, unit = "") {
    this.box = box;
    this.series = series;
    this.unit = unit;
    this.moments = [];
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    box.append(this.tip);
    new ResizeObserver(() => this.draw(this.moments)).observe(box);
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => { this.tip.hidden = true; this.hair?.remove(); });
  }

  draw(moments) {
    this.moments = moments;
    const { width, height } = this.box.getBoundingClientRect();
    if (width < 80 || !moments.length) return;
    const values = moments.flatMap((m) => this.series.map((s) => s.of(m) ?? 0));
    this.marks = ticks(Math.max(1, ...values));
    this.top = this.marks.at(-1);
    this.width = width;
    this.height = height;
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    this.drawAxes(drawing);
    for (const series of this.series) this.drawSeries(drawing, series);
    this.box.querySelector("svg")?.remove();
    this.box.prepend(drawing);
    if (this.pointed !== undefined && !this.tip.hidden) this.showTip(this.pointed);
  }

  x(index) {
    const inner = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + (inner * index) / Math.max(1, this.moments.length - 1);
  }

  y(value) {
    return this.height - MARGIN.bottom - (value / this.top) * (this.height - MARGIN.top - MARGIN.bottom);
  }

  drawAxes(drawing) {
    for (const mark of this.marks) {
      const y = this.y(mark);
      drawing.append(svg("line", { class: "grid", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y }));
      drawing.append(svg("text", { class: "tick", x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, tell(mark)));
    }
    const last = this.moments.length - 1;
    for (const [ago, anchor] of [[120, "start"], [60, "middle"], [0, "end"]]) {
      const x = this.x(Math.max(0, last - ago));
      const text = ago ? `${ago} s ago` : "now";
      drawing.append(svg("text", { class: "tick", x, y: this.height - 4, "text-anchor": anchor }, text));
    }
  }

  drawSeries(drawing, { name, of, area }) {
    let path = "";
    let start = null;
    this.moments.forEach((moment, index) => {
      const value = of(moment);
      if (value === null) {
        start = null;
        return;
      }
      path += `${start === null ? "M" : "L"}${this.x(index).toFixed(1)} ${this.y(value).toFixed(1)}`;
      if (start === null) drawing.append(svg("circle", { class: name, cx: this.x(index), cy: this.y(value), r: 1.4 }));
      start = index;
    });
    if (!path) return;
    if (area) {
      const floor = `L${this.x(this.moments.length - 1)} ${this.y(0)}L${this.x(0)} ${this.y(0)}Z`;
      drawing.append(svg("path", { class: `area ${name}`, d: path + floor }));
    }
    drawing.append(svg("path", { class: `line ${name}`, d: path }));
  }

  point(event) {
    if (!this.moments.length) return;
    const left = event.clientX - this.box.getBoundingClientRect().left;
    const step = this.x(1) - this.x(0);
    const index = Math.round((left - MARGIN.left) / step);
    this.pointed = Math.min(this.moments.length - 1, Math.max(0, index));
    this.showTip(this.pointed);
  }

  showTip(index) {
    const moment = this.moments[index];
    const x = this.x(index);
    this.hair?.remove();
    this.hair = svg("line", { class: "hair", x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom });
    this.box.querySelector("svg").append(this.hair);
    const rows = this.series.map(({ name, of }) =>
      make("span", "", make("i", name), `${tell(of(moment))}${of(moment) === null ? "" : this.unit}`));
    const when = new Date(moment.second * 1000).toLocaleTimeString();
    this.tip.replaceChildren(make("b", "", when), ...rows);
    this.tip.hidden = false;
    const right = x > this.width / 2;
    this.tip.style.left = right ? "" : `${x + 12}px`;
    this.tip.style.right = right ? `${this.width - x + 12}px` : "";
  }
}
