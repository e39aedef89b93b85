// The page: polls the agent, and joins its parts.
//
// One-click links: ?room=NAME&watch=1 and ?room=NAME&publish=camera|pattern;
// both may stand together, and #token=TOKEN behind them.

import {call, setToken, token, whileVisible} from "./api.js";
import {text} from "./dom.js";
import {Tiles} from "./sessions.js";
import {showRooms, showWorkers} from "./tables.js";
import {Traffic} from "./traffic.js";

const pollTime = 1000; // ms
const $ = (id) => document.getElementById(id);
const tiles = new Tiles($("tiles"));
const traffic = new Traffic($("graphs"));
let poll = () => {};
let letIn = () => {};
const admitted = new Promise((resolve) => { letIn = resolve; });

async function update() {
  try {
    const [workers, rooms] = await Promise.all([call("api/v1/workers"), call("api/v1/rooms")]);
    showWorkers(workers, {drain: askDrain, undrain: (w) => act(`api/v1/workers/${w.id}/drain`)});
    showRooms(rooms, (name) => tiles.watch(name));
    traffic.push(workers);
    showHealth(workers);
    $("token").hidden = true;
    $("machine").hidden = token() !== ""; // a plain link carries no token
    trouble("");
    letIn();
  } catch (error) {
    if (error.status === 401) return wantToken(error);
    trouble(error.status ? error.message : "The agent does not answer. Trying again.");
    health("no answer", "failed");
  }
}

function showHealth(workers) {
  const serving = workers.filter((w) => w.state === "ready" || w.state === "draining").length;
  if (serving === workers.length) health("ready", "ready");
  else health(serving ? `${serving} of ${workers.length} up` : "not ready", serving ? "starting" : "failed");
}

function health(label, state) {
  text($("health"), label);
  $("health").dataset.state = state;
}

function trouble(message) {
  text($("trouble"), message);
  $("trouble").hidden = message === "";
}

// ---- token

function wantToken(error) {
  health("token needed", "starting");
  trouble("");
  text($("token-error"), token() ? error.message : "");
  $("machine").hidden = true;
  if ($("token").hidden) {
    $("token").hidden = false;
    $("token-field").focus();
  }
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token-field").value);
  $("token").reset();
  poll();
});

// ---- publish and watch

async function start(room, action) {
  text($("studio-error"), "");
  try {
    if (action === "watch") tiles.watch(room);
    else await tiles.publish(room, action);
  } catch (error) {
    text($("studio-error"), error.name === "NotAllowedError" ? "The browser was not allowed to use it." : error.message);
  }
}

$("studio").addEventListener("submit", (event) => {
  event.preventDefault();
  start($("room").value, event.submitter?.value ?? "watch");
});

// ---- drain

async function act(path) {
  try {
    await call(path, "DELETE");
  } catch (error) {
    trouble(error.message);
  }
  poll();
}

function askDrain(worker) {
  const rooms = worker.status?.rooms?.length ?? 0;
  text($("drain-title"), `Drain worker ${worker.id}?`);
  text($("drain-text"), "It takes no new rooms, and is stopped and replaced when "
    + (rooms ? `its ${rooms === 1 ? "room is" : `${rooms} rooms are`} gone or the time is over. Who is still there then has to join again.` : "it is empty, which it is now."));
  const dialog = $("drain");
  dialog.returnValue = "";
  dialog.dataset.worker = worker.id;
  dialog.showModal();
}

// One listener for good: "close" comes a little after the dialog has closed, when
// it may have been opened again.
$("drain").addEventListener("close", ({target: {returnValue, dataset}}) => {
  if (returnValue === "drain") act(`api/v1/workers/${dataset.worker}?deadline=${$("drain-deadline").value}`);
});

// ---- start

window.sfu = {get sessions() { return tiles.state; }};

poll = whileVisible(pollTime, update);

const link = new URLSearchParams(location.search);
const room = link.get("room");
if (room) {
  $("room").value = room;
  if ($("studio").reportValidity()) {
    const publish = link.get("publish");
    await admitted;
    if (["camera", "screen", "pattern"].includes(publish)) await start(room, publish);
    if (link.get("watch")) start(room, "watch");
  }
}
