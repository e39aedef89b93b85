// A line of the last minute, one value a second.

import {el, text} from "./dom.js";

const svgNS = "http://www.w3.org/2000/svg";
export const points = 60;
const width = 240;
const height = 56;

/**
 * Graph shows a number and how it came to be: a line, or dots where most
 * seconds have no value.
 */
export class Graph {
  #values = [];
  #format;
  #title;
  #dots;
  #now = el("output.now", {}, "–");
  #high = el("span.high");
  #line = svg("path", {class: "line"});
  #area = svg("path", {class: "area"});
  #mark = svg("line", {class: "mark", y1: 0, y2: height, visibility: "hidden"});
  #picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img"});

  constructor(title, format, {dots = false} = {}) {
    this.#title = title;
    this.#dots = dots;
    this.#format = format;
    this.#picture.append(this.#area, this.#line, this.#mark);
    this.#picture.addEventListener("pointermove", (event) => this.#point(event));
    this.#picture.addEventListener("pointerleave", () => this.#unpoint());
    this.node = el(dots ? "figure.graph.dots" : "figure.graph", {}, el("figcaption", {}, title, this.#high), this.#now, this.#picture);
  }

  /** Appends a value, null for none, and shows now beside it where it differs. */
  push(value, now = value) {
    this.#values.push(value);
    if (this.#values.length > points) this.#values.shift();
    this.#draw(now);
  }

  #draw(now) {
    const known = this.#values.filter((v) => v !== null);
    const high = Math.max(0, ...known);
    const top = high || 1;
    const at = (i) => (points - this.#values.length + i) * width / (points - 1);
    const y = (v) => (height - 3 - v / top * (height - 8)).toFixed(1);
    let line = "", area = "";
    for (const {from, values} of runs(this.#values, this.#dots)) {
      const path = values.map((v, i) => `${at(from + i).toFixed(1)} ${y(v)}`).join("L");
      line += `M${path}${values.length === 1 ? "h0" : ""}`; // h0: a dot
      area += `M${at(from).toFixed(1)} ${height}L${path}V${height}Z`;
    }
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    const shown = now === null ? "–" : this.#format(now);
    text(this.#now, shown);
    text(this.#high, known.length ? `max ${this.#format(high)}` : "");
    this.#picture.setAttribute("aria-label", `${this.#title}: now ${shown}, at most ${this.#format(high)} in the last minute`);
  }

  #point(event) {
    const box = this.#picture.getBoundingClientRect();
    const slot = Math.round((event.clientX - box.left) / box.width * (points - 1));
    const value = this.#values[slot - points + this.#values.length];
    if (value === undefined || value === null) return this.#unpoint();
    const x = slot * width / (points - 1);
    this.#mark.setAttribute("x1", x);
    this.#mark.setAttribute("x2", x);
    this.#mark.setAttribute("visibility", "visible");
    text(this.#high, `${this.#format(value)}, ${points - 1 - slot} s ago`);
  }

  #unpoint() {
    this.#mark.setAttribute("visibility", "hidden");
  }
}

// The stretches without null, or single values, and where they begin.
function runs(values, single) {
  const found = [];
  values.forEach((v, i) => {
    if (v === null) return;
    if (single || i === 0 || values[i - 1] === null) found.push({from: i, values: []});
    found.at(-1).values.push(v);
  });
  return found;
}

function svg(tag, attributes) {
  const node = document.createElementNS(svgNS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
