// The graphs of the last minute, from what the workers count.

import {ms, si} from "./dom.js";
import {Graph, points} from "./graph.js";

// Workers report twice a second and are asked once: over this many seconds the
// rates do not flicker.
const rateWindow = 3;

/** Traffic owns the graphs in parent. */
export class Traffic {
  #samples = []; // of the last minute, oldest first
  #last = new Map(); // counters of each worker incarnation
  #total = zero(); // grown since the page was opened
  #graphs = {
    packets: new Graph("Packets out", (n) => si(n, "/s")),
    bits: new Graph("Bits out", (n) => si(n, "bit/s")),
    incoming: new Graph("Bits in", (n) => si(n, "bit/s")),
    drops: new Graph("Dropped", (n) => si(n, "/s")),
    joins: new Graph("Joins", (n) => si(n, "/s")),
    firstFrame: new Graph("First frame", (n) => ms(n * 1000), {dots: true}),
  };

  constructor(parent) {
    parent.append(...Object.values(this.#graphs).map((graph) => graph.node));
  }

  /** Takes the answer of GET api/v1/workers. */
  push(workers) {
    for (const w of workers) if (w.status) this.#grow(w);
    this.#samples.push({at: performance.now() / 1000, ...this.#total});
    if (this.#samples.length > points) this.#samples.shift();
    this.#draw();
  }

  // Adds what a worker counted since it was last asked. A new incarnation, and
  // the first look, start from what is found.
  #grow(w) {
    const now = counted(w.status);
    const before = this.#last.get(w.id);
    this.#last.set(w.id, {name: w.name, now});
    if (before?.name !== w.name) return;
    for (const k of Object.keys(this.#total)) this.#total[k] += Math.max(0, now[k] - before.now[k]);
  }

  #draw() {
    const now = this.#samples.at(-1);
    const before = this.#samples.at(-1 - rateWindow) ?? this.#samples[0];
    const dt = now.at - before.at;
    const rate = (k) => dt > 0 ? (now[k] - before[k]) / dt : 0;
    const g = this.#graphs;
    g.packets.push(rate("packetsOut"));
    g.bits.push(rate("bytesOut") * 8);
    g.incoming.push(rate("bytesIn") * 8);
    g.drops.push(rate("drops"));
    g.joins.push(rate("joins"));
    g.firstFrame.push(mean(this.#samples.at(-2), now), mean(this.#samples[0], now));
  }
}

// Mean first-frame time in seconds between two samples, null where none was.
function mean(before, now) {
  const n = before ? now.firstFrames - before.firstFrames : 0;
  return n > 0 ? (now.firstFrameSum - before.firstFrameSum) / n : null;
}

function zero() {
  return {packetsOut: 0, bytesOut: 0, bytesIn: 0, drops: 0, joins: 0, firstFrames: 0, firstFrameSum: 0};
}

function counted(status) {
  const c = status.counters;
  const all = (counts) => Object.values(counts ?? {}).reduce((sum, n) => sum + n, 0);
  return {
    packetsOut: c.packets_out, bytesOut: c.bytes_out, bytesIn: c.bytes_in,
    drops: all(c.drops), joins: c.joins?.ok ?? 0,
    firstFrames: status.first_frame.count, firstFrameSum: status.first_frame.sum,
  };
}
