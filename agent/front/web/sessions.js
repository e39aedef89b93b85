// The tiles of this page's own sessions: what is published and watched here.

import {token} from "./api.js";
import {el, ms, si, text} from "./dom.js";
import {openSource} from "./source.js";
import {WhepSession, WhipSession} from "./whip.js";

const sourceNames = {camera: "camera", screen: "screen", pattern: "test pattern"};

/** Tiles owns the sessions and their elements in parent. */
export class Tiles {
  #parent;
  #tiles = new Set();

  constructor(parent) {
    this.#parent = parent;
  }

  /** Publishes the source to the room; rejects when the source cannot be had. */
  async publish(room, kind) {
    const source = await openSource(kind, room);
    const session = new WhipSession(`whip/${room}`, source.stream, {token: token()});
    const tile = this.#add(new Tile(session, {room, title: `Publishing ${sourceNames[kind]}`, close: source.close}));
    tile.show(source.stream);
    // The browser's own "stop sharing" ends the track.
    for (const track of source.stream.getTracks()) track.addEventListener("ended", () => tile.close());
  }

  watch(room) {
    const session = new WhepSession(`whep/${room}`, {token: token()});
    const tile = this.#add(new Tile(session, {room, title: "Watching"}));
    session.addEventListener("track", () => tile.show(session.stream));
  }

  /** Plain data of all sessions, for tests and the console. */
  get state() {
    return [...this.#tiles].map((tile) => tile.state);
  }

  #add(tile) {
    tile.closed = () => this.#tiles.delete(tile);
    this.#tiles.add(tile);
    this.#parent.append(tile.node);
    tile.session.start();
    return tile;
  }
}

class Tile {
  closed = () => {};
  #video = el("video", {autoplay: true, playsinline: true});
  #status = el("p.status", {role: "status"});
  #numbers = el("dl.numbers");
  #values = new Map();
  #room;
  #release;
  #stopping = false;

  constructor(session, {room, title, close = () => {}}) {
    this.session = session;
    this.#room = room;
    this.#release = close;
    this.#video.muted = true;
    for (const event of ["loadeddata", "resize"]) this.#video.addEventListener(event, () => this.#noteFirstFrame());
    this.#video.setAttribute("aria-label", `${title}, room ${room}`);
    const watching = session instanceof WhepSession;
    const sound = el("button", {type: "button", "aria-pressed": "false", click: () => this.#toggleSound(sound)}, "Sound");
    const full = el("button", {type: "button", click: () => this.#video.requestFullscreen()}, "Full screen");
    this.node = el("article.tile", {"aria-label": `${title} in room ${room}`},
      el("div.picture", {}, this.#video, this.#status),
      el("header", {},
        el("h3", {}, el("span.kind", {}, title), el("span.name", {}, room)),
        el("div.buttons", {}, ...(watching ? [sound, full] : []),
          el("button", {type: "button", click: () => this.close()}, "Stop"))),
      this.#numbers);
    session.addEventListener("state", () => this.#draw());
    session.addEventListener("stats", () => this.#draw());
    this.#draw();
  }

  show(stream) {
    if (this.#video.srcObject === stream) return;
    this.#video.srcObject = stream;
    this.#video.play().catch(() => { /* it plays with the first frame, or another stream has come */ });
  }

  // A page that is not to be seen gets no frame callbacks, so the size of the
  // picture will do: it is known with the first frame.
  #noteFirstFrame() {
    const {session} = this;
    if (session instanceof WhepSession && this.#video.videoWidth > 0 && this.#video.srcObject === session.stream) session.noteFirstFrame();
  }

  async close() {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#release();
    this.node.remove();
    this.closed();
    await this.session.stop();
  }

  get state() {
    const {session} = this;
    return {
      kind: session instanceof WhepSession ? "whep" : "whip",
      room: this.#room,
      state: session.state,
      detail: session.detail,
      joins: session.joins,
      quiet: session.quiet,
      framesDecoded: session instanceof WhepSession ? session.frames : 0,
      framesEncoded: session instanceof WhipSession ? session.frames : 0,
      firstFrameMs: session.firstFrameMs ?? null,
      ...session.stats,
    };
  }

  #toggleSound(button) {
    this.#video.muted = !this.#video.muted;
    button.setAttribute("aria-pressed", String(!this.#video.muted));
  }

  #draw() {
    const {session} = this;
    this.node.dataset.state = session.quiet ? "quiet" : session.state;
    text(this.#status, statusText(session));
    const s = session.stats;
    const watching = session instanceof WhepSession;
    this.#number("Bit rate", s && si(s.bitrate, "bit/s"));
    this.#number("Picture", s && s.height ? `${s.width}×${s.height} ${s.codec}` : null);
    this.#number("Frames/s", s && s.height ? String(Math.round(s.fps)) : null);
    this.#number("Round trip", s && s.rtt !== null ? ms(s.rtt) : null);
    this.#number("Lost", s && String(s.lost));
    if (watching) this.#number("First frame", s && session.firstFrameMs !== null ? ms(session.firstFrameMs) : null);
    else this.#number("Limited by", s && s.limited);
  }

  #number(name, value) {
    let dd = this.#values.get(name);
    if (!dd) {
      dd = el("dd");
      this.#values.set(name, dd);
      this.#numbers.append(el("div", {}, el("dt", {}, name), dd));
    }
    text(dd, value || "–");
  }
}

function statusText(session) {
  const watching = session instanceof WhepSession;
  const absent = watching && (session.status === 404 || session.status === 409);
  switch (session.state) {
    case "connecting": return session.joins || session.status ? "Connecting again…" : "Connecting…";
    case "waiting": return absent ? "Waiting for a publisher…" : `${sentence(session.detail)} Trying again.`;
    case "failed": return session.status === 401 ? "The agent wants a token. Give it above, then start again." : sentence(session.detail);
    case "live": return watching && session.quiet ? "Nothing comes from the publisher." : "";
    default: return "";
  }
}

const sentence = (s) => s.charAt(0).toUpperCase() + s.slice(1).replace(/[.!?]?$/, ".");
