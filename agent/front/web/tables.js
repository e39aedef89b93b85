// The tables of rooms and workers.

import {age, bytes, count, el, span, sync, text} from "./dom.js";

/** Shows rooms; watch(name) is called by the buttons. */
export function showRooms(rooms, watch) {
  const table = document.getElementById("rooms");
  table.hidden = rooms.length === 0;
  document.getElementById("rooms-none").hidden = rooms.length > 0;
  text(document.getElementById("rooms-count"), rooms.length ? String(rooms.length) : "");
  sync(table.tBodies[0], rooms, (r) => `${r.name}/${r.worker}`, (r) => roomRow(r, watch), updateRoom);
  const names = document.getElementById("room-names");
  sync(names, [...new Set(rooms.map((r) => r.name))], (n) => n, (value) => el("option", {value}), () => {});
}

function roomRow(room, watch) {
  return row(["Room", "Publisher", "Viewers", "Tracks", "Worker", "Age"],
    el("button", {type: "button", "aria-label": `Watch ${room.name}`, click: () => watch(room.name)}, "Watch"));
}

function updateRoom(tr, room) {
  const [name, publisher, viewers, tracks, worker, since] = cells(tr);
  text(name, room.name);
  badge(publisher, room.publisher ? "live" : "away", room.publisher ? "ready" : "starting");
  text(viewers, count(room.viewers));
  text(tracks, room.tracks.map((t) => t.codec.replace(/^.*\//, "") + (t.rid ? ` ${t.rid}` : "") + (t.lost ? ` (${count(t.lost)} lost)` : "")).join(", ") || "–");
  text(worker, room.worker);
  text(since, span(age(room.since)));
}

/** Shows workers; drain(worker) and undrain(worker) are called by the buttons. */
export function showWorkers(workers, actions) {
  const table = document.getElementById("workers");
  table.hidden = workers.length === 0;
  document.getElementById("workers-none").hidden = workers.length > 0;
  const ready = workers.filter((w) => w.state === "ready").length;
  text(document.getElementById("workers-count"), `${ready} of ${workers.length} ready`);
  sync(table.tBodies[0], workers, (w) => w.id, () => workerRow(actions), updateWorker);
}

function workerRow(actions) {
  const button = el("button", {type: "button", click: () => actions[button.dataset.action](button.worker)});
  return row(["Worker", "State", "Process", "Sends by", "Load", "Limits", "Restarts"], button);
}

function updateWorker(tr, w) {
  const [id, state, process, sends, load, limits, restarts] = cells(tr);
  text(id, w.id);
  badge(state, w.state, w.state, stateNote(w));
  lines(process, w.pid ? `PID ${w.pid}` : "–", w.unit || w.cgroup || w.placer);
  lines(sends, w.status?.udp.rung || "–", w.status ? [w.status.udp.address, w.status.udp.why].filter(Boolean).join(" · ") : "");
  lines(load, ...loadText(w.status));
  lines(limits, ...limitText(w.limits));
  lines(restarts, count(w.restarts), w.last_exit ? `${w.last_exit.text}, ${span(age(w.last_exit.time))} ago` : "");
  updateButton(tr.querySelector("button"), w);
}

function updateButton(button, w) {
  const draining = w.state === "draining";
  button.worker = w;
  button.dataset.action = draining ? "undrain" : "drain";
  button.disabled = !draining && w.state !== "ready";
  text(button, draining ? "Cancel drain" : "Drain…");
  button.setAttribute("aria-label", draining ? `Cancel the drain of worker ${w.id}` : `Drain worker ${w.id}`);
}

function stateNote(w) {
  if (w.drain_deadline) return `at most ${span(-age(w.drain_deadline))} more`;
  return `for ${span(age(w.since))}${w.adopted ? ", adopted" : ""}`;
}

function loadText(status) {
  if (!status) return ["–"];
  const rooms = status.rooms ?? [];
  const viewers = rooms.reduce((n, r) => n + r.viewers, 0);
  return [`${count(rooms.length)} ${rooms.length === 1 ? "room" : "rooms"}`, `${count(viewers)} ${viewers === 1 ? "viewer" : "viewers"}`];
}

function limitText(l) {
  const all = [
    l.memory_max && `${bytes(l.memory_max)} memory`,
    l.memory_high && `${bytes(l.memory_high)} high`,
    l.cpu_quota_percent && `${l.cpu_quota_percent} % CPU`,
    l.cpu_weight && `weight ${l.cpu_weight}`,
    l.allowed_cpus && `CPUs ${l.allowed_cpus}`,
    l.tasks_max && `${count(l.tasks_max)} tasks`,
    l.io_weight && `I/O weight ${l.io_weight}`,
    l.io_max && `I/O ${l.io_max}`,
  ].filter(Boolean);
  return all.length ? [all[0], all.slice(1).join(" · ")] : ["none"];
}

// On a narrow screen the row is a card, and data-label stands before the value.
function row(labels, ...actions) {
  return el("tr", {}, ...labels.map((label, i) => el(i ? "td" : "th", {"data-label": label, ...(i ? {} : {scope: "row"})})),
    el("td.actions", {}, ...actions));
}

const cells = (tr) => [...tr.children].slice(0, -1);

function lines(cell, main, note = "") {
  if (!cell.firstElementChild) cell.replaceChildren(el("span"), el("small"));
  text(cell.children[0], main);
  text(cell.children[1], note);
}

function badge(cell, label, state, note = "") {
  if (!cell.firstElementChild) cell.replaceChildren(el("span.pill"), el("small"));
  text(cell.children[0], label);
  cell.children[0].dataset.state = state;
  text(cell.children[1], note);
}
