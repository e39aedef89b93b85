// WHIP (RFC 9725) and WHEP sessions that keep themselves alive.
//
//   const session = new WhepSession("/whep/lobby", {token: "…"});
//   session.addEventListener("track", () => { video.srcObject = session.stream; });
//   session.addEventListener("state", () => show(session.state, session.detail));
//   session.start();
//   …
//   await session.stop();
//
// Events: "state" (state or detail changed), "track" (stream is new), "stats"
// (twice a second while live). States: "new", "connecting", "live", "waiting"
// (lost or refused, and tried again after a pause), "failed" (trying again
// would not help), "stopped".

const answerTime = 15_000; // ms for the server to answer a POST
const connectTime = 10_000; // ms from the answer to a connection
const disconnectedTime = 2_000; // ms without ICE answers before joining anew
const quietTime = 2_000; // ms without a byte before quiet is true
const stallTime = 30_000; // ms without a byte from a connected server before joining anew
const statsTime = 500; // ms between two looks
const firstPause = 250; // ms before the first retry; doubles
const longestPause = 8_000;
const absentPause = 2_000; // longest between two looks for a publisher
const steadyTime = 5_000; // ms a connection must last to count as a success

// Statuses that the same request would get again.
const permanent = new Set([400, 401, 403, 405, 406, 413, 415, 421, 422]);

/** An answer other than the one hoped for. */
export class HTTPError extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter; // seconds, 0 for none
  }

  /** Reads problem+json (RFC 9457), else the text. */
  static async from(response) {
    const text = await response.text().catch(() => "");
    let detail = text.slice(0, 200).trim();
    if ((response.headers.get("Content-Type") ?? "").includes("json")) {
      try { detail = JSON.parse(text).detail ?? detail; } catch { /* the text will do */ }
    }
    const retry = Number(response.headers.get("Retry-After"));
    return new HTTPError(response.status, detail || `The server answered ${response.status}.`, retry > 0 ? retry : 0);
  }
}

class Session extends EventTarget {
  state = "new";
  detail = ""; // why it is in this state, for people
  status = 0; // HTTP status of the last refusal
  joins = 0; // connections made
  stats = null; // see WhipSession.read and WhepSession.read
  quiet = false; // live, but no media moves: the publisher is away
  frames = 0; // video frames encoded or decoded, over all connections
  startedAt = 0; // performance.now() of the present attempt's start

  #url;
  #options;
  #stop = new AbortController();
  #running = null;
  #pc = null;
  #location = null;

  /**
   * @param {string} url of the endpoint
   * @param {{token?: string, rtc?: RTCConfiguration}} options
   */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.location?.href).href;
    this.#options = options;
  }

  start() {
    this.#running ??= this.#run();
    return this;
  }

  /** Resolves when the server has been told. */
  async stop() {
    this.#stop.abort();
    await this.#running;
  }

  // Tries until stopped or told that it is in vain.
  async #run() {
    const stop = this.#stop.signal;
    const leave = () => this.#delete({keepalive: true});
    globalThis.addEventListener("pagehide", leave);
    let failures = 0;
    while (!stop.aborted) {
      let reason;
      try {
        this.#set("connecting");
        await this.#connect(stop);
        const since = performance.now();
        this.joins++;
        this.#set("live");
        reason = new Error(await this.#lost(stop));
        if (performance.now() - since > steadyTime) failures = 0;
      } catch (error) {
        reason = error;
      }
      await this.#hangUp();
      if (stop.aborted) break;
      this.status = reason.status ?? 0;
      if (permanent.has(this.status)) {
        this.#set("failed", reason.message);
        break;
      }
      const ms = pause(reason, failures++);
      this.#set("waiting", reason.message);
      await sleep(ms, stop);
    }
    globalThis.removeEventListener("pagehide", leave);
    if (stop.aborted) this.#set("stopped");
  }

  async #connect(stop) {
    this.startedAt = performance.now();
    const pc = this.#pc = new RTCPeerConnection({bundlePolicy: "max-bundle", ...this.#options.rtc});
    this.prepare(pc);
    await pc.setLocalDescription();
    // No candidates are waited for: the server learns ours from our checks. And
    // stop does not abort the POST: what it creates must be deleted.
    const response = await fetch(this.#url, {
      method: "POST",
      headers: {...this.#authorization(), "Content-Type": "application/sdp"},
      body: pc.localDescription.sdp,
      signal: AbortSignal.timeout(answerTime),
    });
    if (response.status !== 201) throw await HTTPError.from(response);
    const location = response.headers.get("Location");
    if (location) this.#location = new URL(location, response.url).href;
    const sdp = await response.text();
    stop.throwIfAborted();
    await pc.setRemoteDescription({type: "answer", sdp});
    await connected(pc, stop);
  }

  // Resolves with the reason when the connection is of no use any more.
  #lost(stop) {
    const pc = this.#pc;
    const watch = new AbortController();
    const {signal} = watch;
    return new Promise((resolve) => {
      let timer = 0;
      pc.addEventListener("connectionstatechange", () => {
        clearTimeout(timer);
        if (pc.connectionState === "failed" || pc.connectionState === "closed") resolve("The connection was lost.");
        if (pc.connectionState === "disconnected") timer = setTimeout(resolve, disconnectedTime, "The server does not answer.");
      }, {signal});
      for (const {receiver} of pc.getTransceivers()) {
        const dtls = receiver.transport;
        dtls?.addEventListener("statechange", () => {
          if (dtls.state === "closed" || dtls.state === "failed") resolve("The server ended the session.");
        }, {signal});
      }
      stop.addEventListener("abort", () => resolve(""), {signal});
      this.#measure(pc, signal, resolve);
      signal.addEventListener("abort", () => clearTimeout(timer));
    }).finally(() => watch.abort());
  }

  // Reads the statistics until signal, and notices when nothing comes.
  #measure(pc, signal, resolve) {
    const framesBefore = this.frames;
    let last = null;
    let moved = performance.now();
    const look = async () => {
      const now = this.read([...(await pc.getStats()).values()]);
      if (signal.aborted) return;
      const at = performance.now();
      if (last === null || now.bytes !== last.bytes) moved = at;
      now.bitrate = last === null ? 0 : Math.max(0, (now.bytes - last.bytes) * 8000 / (at - last.at));
      last = {bytes: now.bytes, at};
      this.quiet = at - moved > quietTime;
      this.frames = framesBefore + now.frames;
      this.stats = now;
      this.dispatchEvent(new Event("stats"));
      if (at - moved > stallTime) resolve("Nothing comes any more.");
    };
    const timer = setInterval(() => look().catch((error) => resolve(error.message)), statsTime);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  async #hangUp() {
    this.#pc?.close();
    this.#pc = null;
    await this.#delete({signal: AbortSignal.timeout(answerTime)});
  }

  // Ends the session on the server, once.
  async #delete(options) {
    const location = this.#location;
    this.#location = null;
    if (location === null) return;
    try {
      await fetch(location, {method: "DELETE", headers: this.#authorization(), ...options});
    } catch { /* the server notices by itself that we are gone */ }
  }

  #authorization() {
    return this.#options.token ? {Authorization: `Bearer ${this.#options.token}`} : {};
  }

  #set(state, detail = "") {
    this.state = state;
    this.detail = detail;
    this.quiet = false;
    if (state !== "live") this.stats = null;
    this.dispatchEvent(new Event("state"));
  }
}

/** Publishes a MediaStream. */
export class WhipSession extends Session {
  /** @param {{token?: string, rtc?: RTCConfiguration, maxBitrate?: number}} options maxBitrate of the video, in bit/s */
  constructor(url, stream, options = {}) {
    super(url, options);
    this.stream = stream;
    this.maxBitrate = options.maxBitrate ?? 2_500_000;
  }

  prepare(pc) {
    for (const track of this.stream.getTracks()) {
      const sendEncodings = track.kind === "video" ? [{maxBitrate: this.maxBitrate}] : [{}];
      pc.addTransceiver(track, {direction: "sendonly", streams: [this.stream], sendEncodings});
    }
  }

  read(stats) {
    const out = stats.filter((s) => s.type === "outbound-rtp");
    const back = stats.filter((s) => s.type === "remote-inbound-rtp");
    const video = out.find((s) => s.kind === "video");
    const audio = out.find((s) => s.kind === "audio");
    return {
      ...picture(video),
      bytes: sum(out, "bytesSent"),
      packets: sum(out, "packetsSent"),
      audioPackets: audio?.packetsSent ?? 0,
      frames: video?.framesEncoded ?? 0,
      lost: sum(back, "packetsLost"),
      rtt: roundTrip(stats),
      codec: codec(stats, video),
      limited: video?.qualityLimitationReason ?? "none",
    };
  }
}

/** Watches a room. */
export class WhepSession extends Session {
  stream = null; // new with every connection
  firstFrameMs = null; // from the present attempt's start to its first picture

  /** Call it when a video element shows the first frame of stream. */
  noteFirstFrame() {
    this.firstFrameMs ??= performance.now() - this.startedAt;
  }

  prepare(pc) {
    const stream = this.stream = new MediaStream();
    this.firstFrameMs = null;
    pc.addEventListener("track", ({track}) => {
      stream.addTrack(track);
      this.dispatchEvent(new Event("track"));
    });
    pc.addTransceiver("video", {direction: "recvonly"});
    pc.addTransceiver("audio", {direction: "recvonly"});
  }

  read(stats) {
    const inbound = stats.filter((s) => s.type === "inbound-rtp");
    const video = inbound.find((s) => s.kind === "video");
    const audio = inbound.find((s) => s.kind === "audio");
    return {
      ...picture(video),
      bytes: sum(inbound, "bytesReceived"),
      packets: sum(inbound, "packetsReceived"),
      audioPackets: audio?.packetsReceived ?? 0,
      frames: video?.framesDecoded ?? 0,
      lost: sum(inbound, "packetsLost"),
      rtt: roundTrip(stats),
      codec: codec(stats, video),
    };
  }
}

const picture = (video) => ({
  fps: video?.framesPerSecond ?? 0,
  width: video?.frameWidth ?? 0,
  height: video?.frameHeight ?? 0,
});

const sum = (reports, name) => reports.reduce((n, r) => n + (r[name] ?? 0), 0);

// Milliseconds, null while unknown.
function roundTrip(stats) {
  const pair = stats.find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded");
  return pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000;
}

function codec(stats, rtp) {
  const found = rtp?.codecId && stats.find((s) => s.id === rtp.codecId);
  return found ? found.mimeType.replace(/^.*\//, "") : "";
}

// Milliseconds to wait before the next try, with some chance in it, so that a
// room's viewers do not come back in one instant.
function pause(reason, failures) {
  const longest = reason.status === 404 || reason.status === 409 ? absentPause : longestPause;
  const ms = Math.min(longest, firstPause * 2 ** failures);
  return Math.max((reason.retryAfter ?? 0) * 1000, ms) * (1 + Math.random() / 4);
}

function sleep(ms, stop) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, {once: true});
  });
}

function connected(pc, stop) {
  const watch = new AbortController();
  return new Promise((resolve, reject) => {
    const check = () => {
      if (pc.connectionState === "connected") resolve();
      if (pc.connectionState === "failed" || pc.connectionState === "closed") reject(new Error("No connection came about. Is the server's UDP port reachable?"));
    };
    const timer = setTimeout(() => reject(new Error("No connection within 10 s. Is the server's UDP port reachable?")), connectTime);
    watch.signal.addEventListener("abort", () => clearTimeout(timer));
    stop.addEventListener("abort", () => reject(stop.reason), {signal: watch.signal});
    pc.addEventListener("connectionstatechange", check, {signal: watch.signal});
    check();
  }).finally(() => watch.abort());
}
